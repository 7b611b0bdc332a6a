"""Who else uses this machine's CPUs, by name: a fault that names the culprit is one a reader can mend.

Opinion: presence is no offence. A process counts only by the CPU time that it, and what it started, used while watched.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gemma3n_perf.hardware.system import System

# sysconf(_SC_CLK_TCK) has been 100 on every Linux MLX runs on; a recording does not tell its own.
TICK_S = 0.01
# Places after the command's closing parenthesis in /proc/<pid>/stat; see proc_pid_stat(5).
_PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14
PS = ("ps", "-Axo", "pid=,ppid=,time=,comm=")
_PS_LINE = re.compile(r"\s*(\d+)\s+(\d+)\s+(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)\s+(.+?)\s*")


@dataclass(frozen=True, slots=True)
class Process:
    """One process at one moment. ``cpu_s`` is its own CPU time, ``reaped_s`` that of children which have ended."""

    pid: int
    parent: int
    name: str
    cpu_s: float
    reaped_s: float = 0.0


@dataclass(frozen=True, slots=True)
class OtherProcess:
    """A process that is not ours. ``cores`` is its CPU time per second watched, with all it started in ``family``."""

    pid: int
    name: str
    cores: float
    family: float


def snapshot(system: System) -> Mapping[int, Process] | None:
    """Return every process there is, or None where the platform does not tell."""
    found = {one.pid: one for one in (_from_ps(system) if system.platform == "darwin" else _from_proc(system))}
    return found or None


def other_processes(
    before: Mapping[int, Process], after: Mapping[int, Process], seconds: float, own: Iterable[int]
) -> tuple[OtherProcess, ...]:
    """Return the processes that used CPU between two snapshots, the busiest first.

    ``own`` are the measuring processes. They, and those they descend from (a shell, make, a runner), do not count.
    """
    ours = set(own)
    for pid in tuple(ours):
        while (known := after.get(pid)) is not None and known.parent not in ours and known.parent > 0:
            pid = known.parent
            ours.add(pid)
    used, reaped = _used(before, after)
    total = {pid: used[pid] + reaped[pid] for pid in used}
    family = dict(total)
    for pid in used:
        seen, above = {pid}, after[pid].parent
        while above in family and above not in seen:
            family[above] += total[pid]
            seen.add(above)
            above = after[above].parent
    found = [
        OtherProcess(pid, after[pid].name, used[pid] / seconds, family[pid] / seconds)
        for pid in used
        if pid not in ours and family[pid] > 0
    ]
    return tuple(sorted(found, key=lambda one: (-one.cores, -one.family, one.pid)))


def _used(before: Mapping[int, Process], after: Mapping[int, Process]) -> tuple[dict[int, float], dict[int, float]]:
    used: dict[int, float] = {}
    reaped: dict[int, float] = {}
    for pid, now in after.items():
        then = before.get(pid)
        # An id given out again, or a process that is new: all it used fell into the watch.
        known = then if then is not None and then.cpu_s <= now.cpu_s else None
        used[pid] = now.cpu_s - (known.cpu_s if known else 0.0)
        reaped[pid] = max(0.0, now.reaped_s - (known.reaped_s if known else 0.0))
    return used, reaped


def _from_proc(system: System) -> Iterable[Process]:
    for path in system.glob("/proc/[0-9]*/stat"):
        text = system.read(path)
        if not text or ")" not in text:
            continue
        head, _, rest = text.rpartition(")")
        fields = rest.split()
        pid, _, name = head.partition(" (")
        if len(fields) > _CSTIME and pid.isdigit():
            ticks = [int(fields[place]) * TICK_S for place in (_UTIME, _STIME, _CUTIME, _CSTIME)]
            yield Process(int(pid), int(fields[_PPID]), name, ticks[0] + ticks[1], ticks[2] + ticks[3])


def _from_ps(system: System) -> Iterable[Process]:
    for line in (system.run(PS) or "").splitlines():
        match = _PS_LINE.fullmatch(line)
        if match:
            pid, parent, days, hours, minutes, seconds, name = match.groups()
            cpu_s = (int(days or 0) * 24 + int(hours or 0)) * 3600 + int(minutes) * 60 + float(seconds)
            yield Process(int(pid), int(parent), name.rsplit("/", 1)[-1], cpu_s)
