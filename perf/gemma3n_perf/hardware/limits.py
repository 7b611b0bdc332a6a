"""What a shell sets that MLX cannot live with: a small ``ulimit -v``, and numbers that are none. The standard library
alone: numpy does not load within a small limit."""

import os
import re
import resource
from collections.abc import Mapping

from gemma3n_perf.errors import OutOfMemoryError, UsageError

CACHE = "GEMMA3N_PERF_CACHE"
LEAST_BYTES = 1 << 30
COUNTS = ("MLX_BFS_MAX_WIDTH", "MLX_MAX_OPS_PER_BUFFER", "MLX_MAX_MB_PER_BUFFER")
"""Variables that MLX takes for 0 where they are no number, and with a width of 0 it computes for ever."""


def require_memory() -> None:
    """Raise OutOfMemoryError where numpy's and MLX's libraries would end this process, with exit code 1 or a signal."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_BYTES:
        raise OutOfMemoryError(
            f"this process may use {limit / 1e6:.0f} MB of memory",
            expected=f"{LEAST_BYTES / 1e6:.0f} MB or more, beside what the checkpoint needs",
            remedy="ulimit -v unlimited",
        )


def require_counts(environ: Mapping[str, str] = os.environ) -> None:
    """Raise UsageError where a variable that MLX counts by holds no whole number above 0, or one of its is no text."""
    for name, text in environ.items():
        if name.startswith("MLX_") and not is_text(text):
            raise UsageError(f"{name} is not UTF-8", expected="text, which is recorded", remedy=f"unset {name}")
    for name in COUNTS:
        value = environ.get(name)
        if value is not None and not re.fullmatch("0*[1-9][0-9]{0,8}", value):
            raise UsageError(
                f"{name}={value[:40]}", expected="a whole number above 0, which MLX reads there", remedy=f"unset {name}"
            )


def is_text(value: str) -> bool:
    """Whether it can be recorded: a byte of a path or variable that is not UTF-8 cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def absolute_cache() -> None:
    """Make GEMMA3N_PERF_CACHE absolute: git, workers and URLs would take a relative one from elsewhere.

    Raises UsageError where it, or what it or the user's data lie in by default, is no text or not known.
    """
    if place := os.environ.get(CACHE):
        os.environ[CACHE] = os.path.abspath(place)
    if not os.environ.get("HOME") and os.path.expanduser("~") == "~":
        raise UsageError(
            "this user has no home folder",
            expected="one, for checkpoints and what was measured",
            remedy="set HOME to a folder that this user may write to",
        )
    name = next((one for one in (CACHE, "XDG_CACHE_HOME", "HOME") if os.environ.get(one)), "HOME")
    if not is_text(os.environ.get(name, "")):
        raise UsageError(
            f"{name} names a folder that is not UTF-8",
            expected="text: workers are told where checkpoints lie",
            remedy=f"set {CACHE} to another folder",
        )
