"""The machine is measured by one session at a time, and does not fall asleep meanwhile."""

import getpass
import os
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import filelock
import msgspec
import psutil
import wakepy

from gemma3n_perf.errors import MachineBusyError, NotMeasuredError

# Not tempfile.gettempdir(): on macOS, and under TMPDIR, that is each user's own, and two users must meet here.
LOCK_PATH = Path("/tmp/gemma3n-perf.lock")
POLL_S = 1.0
COMMAND_LENGTH = 120


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


@contextmanager
def measuring_lock(
    path: Path = LOCK_PATH,
    *,
    wait_s: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[bool]:
    """Hold this machine's measuring lock, waiting up to ``wait_s`` seconds for it.

    Yields True, or False where this process or an ancestor of it holds the lock already, as for the workers of a duel.
    The kernel drops the lock of a process that dies, however it dies. The file is open to every user and stays.
    Raises MachineBusyError naming the holder, NotMeasuredError if the file cannot be used as a lock.
    """
    lock = filelock.FileLock(path, timeout=0, mode=0o666)
    deadline = clock() + wait_s
    while not _taken(lock):
        holder = read_holder(path)
        if holder is not None and _ours(holder):
            yield False
            return
        if clock() >= deadline:
            raise _busy(holder)
        sleep(POLL_S)
    try:
        _write(path, msgspec.json.encode(_this_process()))
        yield True
    finally:
        # Emptied first: a name left behind would be taken for the next holder's.
        _write(path, b"")
        lock.release()


def read_holder(path: Path = LOCK_PATH) -> Holder | None:
    """Return who last took the lock, if the file tells."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Holder)
    except (OSError, msgspec.MsgspecError):
        return None


@contextmanager
def keep_awake(keeper: Callable[[], AbstractContextManager[wakepy.Mode]] | None = None) -> Iterator[str]:
    """Keep the machine from sleeping, as far as it lets us; yields what was achieved, in words. Never fails.

    wakepy asks caffeinate on macOS and the desktop's session manager on Linux. A server without a desktop has nobody
    to ask, and rarely sleeps.
    """
    with ExitStack() as stack:
        try:
            mode = stack.enter_context((keeper or _wakepy)())
            status = _achieved(mode)
        except Exception as error:
            status = f"not kept awake: {error}"
        # Letting go may fail as well, and must not hide what the measurement raised.
        held = stack.pop_all()
        try:
            yield status
        finally:
            with suppress(Exception):
                held.close()


def _taken(lock: filelock.BaseFileLock) -> bool:
    try:
        lock.acquire()
    except filelock.Timeout:
        return False
    except OSError as error:
        raise NotMeasuredError(
            f"the measuring lock {lock.lock_file} cannot be used: {error.strerror or error}",
            expected="a regular file that every user may write",
            remedy=f"rm {lock.lock_file}, or have its owner do so",
        ) from error
    return True


def _ours(holder: Holder) -> bool:
    process = psutil.Process()
    with suppress(psutil.Error):
        # A process id alone may have been given out again.
        return any(
            one.pid == holder.pid and abs(one.create_time() - holder.started) < 1.0
            for one in [process, *process.parents()]
        )
    return False


def _busy(holder: Holder | None) -> MachineBusyError:
    found = f"this machine is being measured by {holder or 'another process'}"
    if holder is not None and not psutil.pid_exists(holder.pid):
        found += " (which has ended, but a process it left behind still holds the lock)"
    return MachineBusyError(
        found,
        expected="one measurement at a time: two would slow each other",
        remedy="wait for it to end, or stop it",
    )


def _this_process() -> Holder:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"user {os.getuid()}"
    process = psutil.Process()
    program, *arguments = process.cmdline() or ["python"]
    command = " ".join(shlex.join([Path(program).name, *arguments]).split())
    return Holder(process.pid, user, command[:COMMAND_LENGTH], time.time(), process.create_time())


def _write(path: Path, data: bytes) -> None:
    # Without O_CREAT, which Linux may refuse in /tmp for a file of another user. Who holds the lock is a courtesy.
    with suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)


def _wakepy() -> AbstractContextManager[wakepy.Mode]:
    return wakepy.keep.running(on_fail="pass")


def _achieved(mode: wakepy.Mode) -> str:
    if mode.active:
        return f"kept awake by {mode.method.name if mode.method else 'wakepy'}"
    return "not kept awake: neither caffeinate nor a desktop session is here to ask"
