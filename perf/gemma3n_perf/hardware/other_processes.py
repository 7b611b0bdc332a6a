"""Who else uses this machine's CPUs, by name: a reader can end what the fault names.

Only CPU time used while watching counts, that of a process and of what it started; that a program runs is no fault.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gemma3n_perf.hardware.system import System
from gemma3n_perf.hardware.types import Fault

# sysconf(_SC_CLK_TCK) has been 100 on every Linux MLX runs on; a recording does not hold its own.
TICK_S = 0.01
# Places after the command's closing parenthesis in /proc/<pid>/stat; see proc_pid_stat(5).
_PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14
PS = ("ps", "-Axo", "pid=,ppid=,time=,comm=")
_PS_LINE = re.compile(r"\s*(\d+)\s+(\d+)\s+(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)\s+(.+?)\s*")
_NAMED = 3


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
    """Return every process there is, or None where the platform does not list them."""
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
    used: dict[int, float] = {}
    total: dict[int, float] = {}
    for pid, now in after.items():
        then = before.get(pid)
        if then is None or then.cpu_s > now.cpu_s:  # a new process, or an id given out again: all of it was watched
            then = Process(pid, now.parent, now.name, 0.0)
        used[pid] = now.cpu_s - then.cpu_s
        total[pid] = used[pid] + max(0.0, now.reaped_s - then.reaped_s)
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


def listed(found: Sequence[OtherProcess], *, family: bool = False) -> str:
    """Name the first few processes with their share of a core, and say how many more there are."""
    named = [f"{one.name} ({one.pid}) {one.family if family else one.cores:.0%} of a core" for one in found[:_NAMED]]
    more = len(found) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class BackgroundProcess:
    """A kind of program that is known to spoil a measurement.

    ``doing``   what is going on while one of them works
    ``names``   the names that such programs run under, as the kernel keeps them
    ``cores``   the CPU use, with that of what it started, from which on it disturbs
    """

    code: str
    subject: str
    doing: str
    names: re.Pattern[str]
    cores: float
    remedy: str

    def fault_of(self, busy: Sequence[OtherProcess] | None) -> Fault | str | None:
        """Return a fault naming those among ``busy`` that disturb, the busiest first; None where nothing is known."""
        if busy is None:
            return None
        found = [one for one in busy if self.names.fullmatch(one.name) and one.family >= self.cores]
        return Fault(self.code, f"{self.doing}: {listed(found, family=True)}", self.remedy) if found else "none"


# Linux cuts names at 15 characters, macOS gives the file's.
BACKGROUND_PROCESSES = (
    BackgroundProcess(
        "build",
        "builds",
        "something is being built",
        re.compile(
            r"(?:.*-)?(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|ld|lld|ld\.\w+|as)(?:-[\d.]+)?"
            r"|cc1|cc1plus|cc1obj|collect2|lto1|lto-wrapper|mold|nvcc|cicc|ptxas|cudafe\+\+|metal|metallib"
            r"|g?make|ninja|cmake|meson|cargo|rustc|swiftc|swift-\w+|xcodebuild|ibtoold?|actool|ccache|sccache|javac|tsc"
        ),
        0.02,
        "wait for the build to end, or stop it",
    ),
    BackgroundProcess(
        "spotlight",
        "Spotlight",
        "Spotlight is indexing",
        re.compile(r"mds|mds_stores|mdworker\w*|mdbulkimport|mdsync|corespotlightd|spotlightknowledged"),
        0.05,
        "let it finish; on a machine that only measures: sudo mdutil -a -i off",
    ),
    BackgroundProcess(
        "backup",
        "backups",
        "a backup is running",
        re.compile(r"backupd(?:-helper)?|restic|borg|rsync|duplicity|rclone"),
        0.05,
        "let it finish; on a machine that only measures: sudo tmutil disable",
    ),
    BackgroundProcess(
        "sync",
        "cloud folders",
        "files are being synced",
        re.compile(r"OneDrive.*|Dropbox.*|Google Drive.*|bird|syncthing|nextcloud.*|megasync|insync"),
        0.05,
        "let it finish, or quit it while you measure",
    ),
    BackgroundProcess(
        "housekeeping",
        "updates and indexing",
        "the system keeps house",
        re.compile(
            r"softwareupdated?|installd|XProtect\w*|photoanalysisd|mediaanalysisd|photolibraryd|cloudd|fileproviderd"
            r"|apt|apt-get|dpkg|unattended-upgr|packagekitd|dnf|updatedb(?:\.\w+)?|tracker-miner-f|baloo_file|snapd"
        ),
        0.05,
        "let it finish, and move updates to hours in which nothing is measured",
    ),
)


def _from_proc(system: System) -> Iterable[Process]:
    for path in system.glob("/proc/[0-9]*/stat"):
        head, _, others = (system.read(path) or "").rpartition(")")
        fields = others.split()
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
