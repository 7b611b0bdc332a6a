"""CPU time of a process with all that it has started."""

import sys

from gemma3n_perf.hardware.processes import cpu_seconds, tree


def tree_seconds(root: int) -> float | None:
    """Return the CPU time of a process and all that it has started, seconds; None if it is gone. Off Linux, where a
    tree takes long to find, that of the process alone.
    """
    own = cpu_seconds(root)
    if own is None or sys.platform != "linux":
        return own
    return own + sum(cpu_seconds(pid) or 0.0 for pid in tree(root) - {root})
