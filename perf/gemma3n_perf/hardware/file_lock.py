"""A lock by a file, between processes that make the same thing: one makes it, the others wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from gemma3n_perf.errors import MachineBusyError


@contextmanager
def locked(path: Path, timeout_s: float, doing: str) -> Iterator[None]:
    """Hold the lock. Raises MachineBusyError where another process has been ``doing`` the same for too long."""
    try:
        with filelock.FileLock(path, timeout=timeout_s):
            yield
    except filelock.Timeout as error:
        raise MachineBusyError(
            f"another process has been {doing} for {timeout_s / 60:.0f} minutes",
            expected="one at a time",
            remedy=f"wait for it, or remove {path} if that process is gone",
        ) from error
