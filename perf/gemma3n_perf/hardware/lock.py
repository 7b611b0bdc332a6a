"""One measurement at a time on a machine: taking its lock, and who holds it."""

import os
import shlex
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock
import msgspec
import psutil

from gemma3n_perf.errors import MachineBusyError, NotMeasuredError

# Not tempfile.gettempdir(): on macOS, and under TMPDIR, that is each user's own, and two users must meet here.
LOCK_PATH = Path("/tmp/gemma3n-perf.lock")
POLL_S = 1.0
COMMAND_LENGTH = 120
_SAME_START_S = 1.0
_BUSY = "this machine is being measured by "


@dataclass(frozen=True, slots=True)
class Holder:
    """Who measures: ``since`` and ``started`` (of the process) are Unix times in seconds."""

    pid: int
    user: str
    command: str
    since: float
    started: float

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"process {self.pid} of {self.user}, since {began}: {self.command}"

    def is_one_of(self, processes: list[psutil.Process]) -> bool:
        """Whether it is one of these processes. An id alone may have been given out again."""
        with suppress(psutil.Error):
            return any(
                one.pid == self.pid and abs(one.create_time() - self.started) < _SAME_START_S for one in processes
            )
        return False

    def is_ours(self) -> bool:
        """Whether it is this process or an ancestor of it."""
        process = psutil.Process()
        return self.is_one_of([process, *process.parents()])


@contextmanager
def measuring_lock(
    path: Path = LOCK_PATH, *, wait_s: float = 0.0, waiting: Callable[[str, float], None] = lambda who, left_s: None
) -> Iterator[bool]:
    """Hold this machine's measuring lock, waiting up to ``wait_s`` seconds for it.

    While it waits, ``waiting`` is given what keeps the lock and the seconds left, about once a second.

    Yields True, or False where this process or an ancestor of it holds the lock already, as for the workers of a duel.
    The kernel drops the lock of a process that dies, however it dies. The file is open to every user and stays.
    Raises MachineBusyError naming the holder, NotMeasuredError if the file cannot be used as a lock.
    """
    holder = read_holder(path)
    if holder is not None and holder.is_ours():
        yield False
        return
    lock = filelock.FileLock(path, mode=0o666, poll_interval=POLL_S)
    deadline = time.monotonic() + wait_s
    try:
        while not _acquired(lock, min(POLL_S, deadline - time.monotonic())):
            holder = read_holder(path)
            found = f"{_BUSY}{holder or 'another process'}"
            if holder is not None and not psutil.pid_exists(holder.pid):
                found += " (which has ended, but a process it left behind still holds the lock)"
            if (left_s := deadline - time.monotonic()) <= 0:
                raise MachineBusyError(
                    found,
                    expected="one measurement at a time: two would slow each other",
                    remedy="wait for it to end (--wait SECONDS does), or stop it",
                )
            waiting(found, left_s)
    except OSError as error:
        raise NotMeasuredError(
            f"the measuring lock {path} cannot be used: {error.strerror or error}",
            expected="a regular file that every user may write",
            remedy=f"rm {path}, or have its owner do so",
        ) from error
    try:
        _write(path, msgspec.json.encode(_this_process()))
        yield True
    finally:
        # Emptied first: a name left behind would be taken for the next holder's.
        _write(path, b"")
        lock.release()


def read_holder(path: Path = LOCK_PATH) -> Holder | None:
    """Return who last took the lock, if the file says so."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


def holder_elsewhere(path: Path = LOCK_PATH, own: AbstractSet[int] = frozenset()) -> str | None:
    """Return in words who holds the lock, or None where nobody does, or one of ``own``, this process or its ancestors.

    Does not touch the lock of a living holder. Raises NotMeasuredError if the file cannot be used as a lock.
    """
    holder = read_holder(path)
    if holder is None:
        return None
    with suppress(psutil.Error):
        if holder.is_one_of([psutil.Process(holder.pid)]):
            return None if holder.pid in own or holder.is_ours() else str(holder)
    # The process that wrote its name is gone; one that it left behind may hold the lock still. Only trying shows it.
    try:
        with measuring_lock(path):
            return None
    except MachineBusyError as error:
        return error.found.removeprefix(_BUSY)


def _acquired(lock: filelock.BaseFileLock, wait_s: float) -> bool:
    try:
        lock.acquire(timeout=max(0.0, wait_s))
    except filelock.Timeout:
        return False
    return True


def _this_process() -> Holder:
    process = psutil.Process()
    program, *arguments = process.cmdline() or ["python"]
    command = " ".join(shlex.join([Path(program).name, *arguments]).split())
    return Holder(process.pid, process.username(), command[:COMMAND_LENGTH], time.time(), process.create_time())


def _write(path: Path, data: bytes) -> None:
    # Without O_CREAT, which Linux may refuse in /tmp for a file of another user. Who holds the lock is a courtesy.
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
