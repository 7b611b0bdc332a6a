"""The memory limit of a shell, ``ulimit -v``. The standard library alone: numpy does not load within a small one."""

import resource

from gemma3n_perf.errors import OutOfMemoryError

LEAST_BYTES = 1 << 30


def require_memory() -> None:
    """Raise OutOfMemoryError where numpy's and MLX's libraries would end this process, with exit code 1 or a signal."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_BYTES:
        raise OutOfMemoryError(
            f"this process may use {limit / 1e6:.0f} MB of memory",
            expected=f"{LEAST_BYTES / 1e6:.0f} MB or more, beside what the checkpoint needs",
            remedy="ulimit -v unlimited",
        )
