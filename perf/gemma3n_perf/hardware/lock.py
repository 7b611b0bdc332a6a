"""One measurement at a time on a machine: taking its lock, and who holds it.

The lock is the kernel's, on the folder that temporary files of all users share: nobody can remove or replace that. A
file in it names the holder, as a courtesy: what it says is shown, and decides nothing.
"""

import fcntl
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec
import psutil

from gemma3n_perf.errors import MachineBusyError, NotMeasuredError

# Not tempfile.gettempdir(): on macOS, and under TMPDIR, that is each user's own, and two users must meet here.
LOCK_PATH = Path("/tmp/gemma3n-perf.lock")
POLL_S = 1.0
COMMAND_LENGTH = 120
_MOST_BYTES = 4096
_GRACE_S = 0.2
"""Who only looks whether the lock is free holds it for a moment."""
_TAKEN_BY = "GEMMA3N_PERF_MEASURED_BY"
"""Names the process that holds the lock to those that it starts: its id and when it was started."""
_SAME_START_S = 1.0
_BUSY = "this machine is being measured by "


@dataclass(frozen=True, slots=True)
class Holder:
    """Who measures; ``since`` is a Unix time in seconds."""

    pid: int
    user: str
    command: str
    since: float

    def __post_init__(self) -> None:
        """Refuse what no process can be: anybody may write the file. Raises ValueError."""
        if not 0 < self.pid < 2**31 or not 0 <= self.since < 2**33:
            raise ValueError("no process")

    def __str__(self) -> str:
        began = datetime.fromtimestamp(self.since).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"process {self.pid} of {self.user}, since {began}: {self.command}"


@contextmanager
def measuring_lock(
    path: Path = LOCK_PATH, *, wait_s: float = 0.0, waiting: Callable[[str, float], None] = lambda who, left_s: None
) -> Iterator[bool]:
    """Hold this machine's measuring lock, waiting up to ``wait_s`` seconds for it.

    While it waits, ``waiting`` is given what keeps the lock and the seconds left, about once a second.

    Yields True, or False where this process or an ancestor of it holds the lock already, as for the workers of a duel.
    The kernel drops the lock of a process that dies, however it dies. ``path`` names the holder while it is held, and
    stays. Raises MachineBusyError naming the holder, NotMeasuredError if the folder cannot be locked.
    """
    if _taken_above():
        yield False
        return
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(path.parent, error) from error
    try:
        _take(folder, path, wait_s, waiting)
        process = psutil.Process()
        os.environ[_TAKEN_BY] = f"{process.pid} {process.create_time()}"
        _write(path, msgspec.json.encode(_this_process()))
        yield True
    finally:
        if os.environ.get(_TAKEN_BY, "").split(" ")[0] == str(os.getpid()):
            # Emptied first: a name left behind would be taken for the next holder's.
            del os.environ[_TAKEN_BY]
            _write(path, b"")
        os.close(folder)


def _take(folder: int, path: Path, wait_s: float, waiting: Callable[[str, float], None]) -> None:
    deadline = time.monotonic() + max(wait_s, _GRACE_S)
    while not _locked(folder, path.parent):
        holder = read_holder(path)
        found = f"{_BUSY}{holder or 'another process'}"
        if holder is not None and not psutil.pid_exists(holder.pid):
            found += " (which has ended, but a process it left behind still holds the lock)"
        if (left_s := deadline - time.monotonic()) <= 0:
            raise MachineBusyError(
                found,
                expected="one measurement at a time: two would slow each other",
                remedy="wait for it to end (--wait 300 does, for so many seconds), or stop it",
            )
        if wait_s > 0:
            waiting(found, left_s)
        time.sleep(min(POLL_S, left_s, _GRACE_S / 2 if wait_s <= _GRACE_S else POLL_S))


def read_holder(path: Path = LOCK_PATH) -> Holder | None:
    """Return who last took the lock, if the file says so; whatever else lies there says nothing."""
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return msgspec.json.decode(os.read(descriptor, _MOST_BYTES), type=Holder)
        finally:
            os.close(descriptor)
    return None


def holder_elsewhere(path: Path = LOCK_PATH) -> str | None:
    """Return in words who holds the lock, or None where nobody does, or this process or an ancestor of it.

    Raises NotMeasuredError if the folder cannot be locked.
    """
    try:
        with measuring_lock(path):
            return None
    except MachineBusyError as error:
        return error.found.removeprefix(_BUSY)


def _taken_above() -> bool:
    """Whether this process or an ancestor of it holds the lock. A process id alone may have been given out again."""
    pid, _, started = os.environ.get(_TAKEN_BY, "").partition(" ")
    with suppress(psutil.Error, ValueError):
        process = psutil.Process()
        for one in (process, *process.parents()):
            if str(one.pid) == pid and abs(one.create_time() - float(started)) < _SAME_START_S:
                return True
    return False


def _locked(folder: int, path: Path) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def _unusable(folder: Path, error: OSError) -> NotMeasuredError:
    return NotMeasuredError(
        f"the measuring lock cannot be taken on {folder}: {error.strerror or error}",
        expected="a folder that every user may read, on a file system with locks",
        remedy=f"look at it: ls -ld {folder}",
    )


def _this_process() -> Holder:
    process = psutil.Process()
    program, *arguments = process.cmdline() or ["python"]
    command = " ".join(shlex.join([Path(program).name, *arguments]).split())
    command = command.encode(errors="replace").decode()  # a name that is not UTF-8 fits no JSON
    return Holder(process.pid, process.username(), command[:COMMAND_LENGTH], time.time())


def _write(path: Path, data: bytes) -> None:
    # Linux may refuse O_CREAT in /tmp for a file of another user, and a pipe without a reader would wait for one.
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_CREAT | os.O_EXCL):
        with suppress(OSError):
            descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            try:
                if flags & os.O_CREAT:
                    os.fchmod(descriptor, 0o666)  # whatever the umask
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, data)
            finally:
                os.close(descriptor)
            return
