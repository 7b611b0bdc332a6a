"""CPU time of a process and its descendants, cheap enough to read around every run."""

import os
import sys
import time
from pathlib import Path

import psutil

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
# Places after the command's closing parenthesis in /proc/<pid>/stat; see proc_pid_stat(5).
_CUTIME, _CSTIME = 13, 14


def tree(root: int) -> frozenset[int]:
    """Return ``root`` and every living descendant of it."""
    pid = os.getpid()
    # Linux's own list of children is quick; kernels without it, and macOS, need a scan of every process.
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return scanned_tree(root)
    found, waiting = {root}, [root]
    while waiting:
        fresh = _listed_children(waiting.pop()) - found
        found |= fresh
        waiting.extend(fresh)
    return frozenset(found)


def scanned_tree(root: int) -> frozenset[int]:
    """Return the same as ``tree``, by looking at every process there is."""
    try:
        children = psutil.Process(root).children(recursive=True)
    except psutil.Error:
        children = []
    return frozenset([root, *(child.pid for child in children)])


def cpu_seconds(pid: int) -> float | None:
    """Return the CPU time of a process and of the children it has reaped, seconds; None if it is gone."""
    if sys.platform != "linux":
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return None
        reaped = os.times() if pid == os.getpid() else None
        return times.user + times.system + (reaped.children_user + reaped.children_system if reaped else 0.0)
    try:
        data = Path(f"/proc/{pid}/stat").read_bytes()
        # The process's CPU clock (clock_getcpuclockid(3)) is exact, where /proc counts in ticks of 10 ms.
        live = time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None
    # The command may itself hold spaces and parentheses.
    fields = data[data.rindex(b")") + 2 :].split()
    return live + (int(fields[_CUTIME]) + int(fields[_CSTIME])) * _TICK_S


def leader(pid: int) -> int | None:
    """Return the process that ``pid`` belongs to (a thread id counts), or None if there is none here."""
    if sys.platform != "linux":
        return pid if psutil.pid_exists(pid) else None
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return None
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Tgid:")), None)


def _listed_children(pid: int) -> set[int]:
    found: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found.update(map(int, Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()))
    except OSError:
        pass
    return found
