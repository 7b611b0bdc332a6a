"""Signals to processes that a test starts, and whether those have ended.

A background shell ignores SIGINT, nohup SIGHUP, and their children inherit that.
"""

import signal
import time
from collections.abc import Callable

import psutil


def heard() -> None:
    """Let signals end the process again; for ``preexec_fn``. Python then raises KeyboardInterrupt in it for SIGINT."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


def ended(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def until(true: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is true; says whether it is."""
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()
