"""Whether a machine is fit to measure, found out before a session and not after it was thrown away.

Opinion: everything a run would be discarded for is looked at here first, and more: what will start to disturb in a
minute. What the platform does not tell is unknown, said so, and no reason to refuse.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gemma3n_perf.hardware import fitness_linux, fitness_macos
from gemma3n_perf.hardware.background_processes import BACKGROUND_PROCESSES, background_processes_running
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.lock import holder_elsewhere
from gemma3n_perf.hardware.machine import LOCK_PATH
from gemma3n_perf.hardware.other_processes import OtherProcess, other_processes, snapshot
from gemma3n_perf.hardware.system import System
from gemma3n_perf.hardware.types import Conditions, Fault

SAMPLE_S = 2.0
BACK_OFF_S = (5.0, 120.0)
_NAMED = 3
_WORTH_NAMING = 0.02
_GIB = 2**30


class State(StrEnum):
    """What a check came to. Only ``unfit`` keeps a machine from measuring; a ``note`` is worth knowing."""

    FIT = "fit"
    NOTE = "note"
    UNFIT = "unfit"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what was found, and what to do where it is not as it should be."""

    code: str
    subject: str
    state: State
    found: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Fitness:
    """All checks of one look at a machine, and the conditions sampled with it."""

    checks: tuple[Check, ...]
    conditions: Conditions

    @property
    def fit(self) -> bool:
        """Whether nothing found would spoil a measurement."""
        return not self.unfit

    @property
    def unfit(self) -> tuple[Check, ...]:
        """The checks that keep this machine from measuring."""
        return tuple(check for check in self.checks if check.state is State.UNFIT)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a session asks of a machine: bytes of free memory and disk, and seconds and days of uptime.

    A machine that has just started indexes, updates and syncs; one that runs for months has leaked memory.
    """

    memory_bytes: int = 2 * _GIB
    disk_bytes: int = 10 * _GIB
    settled_s: float = 300.0
    stale_days: float = 60.0


@dataclass(frozen=True, slots=True)
class Doctor:
    """Looks at one machine. ``root`` is the process whose tree counts as ours, ``folder`` where checkpoints live."""

    system: System
    root: int
    limits: Limits
    folder: Path
    needs: Needs = Needs()
    lock: Path = LOCK_PATH
    sleep: Callable[[float], None] = time.sleep

    def examine(self) -> Fitness:
        """Watch the machine for two seconds in which nothing of ours runs, and return what was found."""
        system = self.system
        probe = ConditionProbe.on(system, self.root)
        before, began = snapshot(system), system.clock()
        probe.start()
        self.sleep(SAMPLE_S)
        conditions = probe.stop()
        after, seconds = snapshot(system), system.clock() - began
        busy = None
        if before is not None and after is not None and seconds > 0:
            busy = other_processes(before, after, seconds, system.tree(self.root))
        disturbed = _disturbed(busy, system.platform == "darwin")
        found = (self._measuring(), *_conditions(conditions, self.limits, busy), *disturbed, *self._machine())
        return Fitness(found, conditions)

    def wait(self, wait_s: float, told: Callable[[Fitness, float], None]) -> Fitness:
        """Examine until the machine is fit or ``wait_s`` seconds are over, pausing longer each time.

        ``told`` hears of each unfit look and of the pause that follows it, seconds.
        """
        deadline, pause = self.system.clock() + wait_s, BACK_OFF_S[0]
        while True:
            found = self.examine()
            left = deadline - self.system.clock()
            if found.fit or left <= 0:
                return found
            told(found, min(pause, left))
            self.sleep(min(pause, left))
            pause = min(2 * pause, BACK_OFF_S[1])

    def _measuring(self) -> Check:
        holder = holder_elsewhere(self.lock, self.system.tree(self.root))
        if holder is None:
            return Check("measuring", "other measurements", State.FIT, "none")
        remedy = "wait for it to end, or stop it"
        return Check("measuring", "other measurements", State.UNFIT, f"being measured by {holder}", remedy)

    def _machine(self) -> Iterator[Check]:
        mac = self.system.platform == "darwin"
        room = fitness_macos if mac else fitness_linux
        yield _uptime(room.uptime_s(self.system), self.needs)
        yield _enough("memory", "free memory", room.free_memory_bytes(self.system), self.needs.memory_bytes,
                      "close programs, or measure a smaller checkpoint")  # fmt: skip
        yield _enough("disk", "free disk", fitness_linux.free_disk_bytes(self.system, self.folder),
                      self.needs.disk_bytes, f"free some space under {self.folder}")  # fmt: skip
        if mac:
            yield _from(fitness_macos.backup(self.system), "backup-running", "Time Machine", "not running")
            yield _from(fitness_macos.gpu_use(self.system), "gpu-busy", "others on the GPU", "idle")
            yield _from(fitness_macos.sleep(self.system), "sleep", "sleep settings", "never sleeps", State.NOTE)
        else:
            yield _from(fitness_linux.sleep(self.system), "sleep", "sleep settings", "cannot sleep", State.NOTE)
            yield _from(fitness_linux.clock_cap(self.system), "clock-capped", "CPU clock", "not capped", State.NOTE)


def _conditions(now: Conditions, limits: Limits, busy: Sequence[OtherProcess] | None) -> Iterator[Check]:
    """Every condition a run is discarded for, known or unknown, in the order of importance."""
    found = {fault.code: fault for fault in faults(now, limits)}
    shown: tuple[tuple[str, str, object, str], ...] = (
        ("battery", "power adapter", now.power_source, f"{now.power_source} power"),
        ("low-power-mode", "low-power mode", now.low_power_mode, "off"),
        ("thermal", "thermal state", now.thermal, str(now.thermal)),
        ("throttled", "clock throttling", now.throttle_reasons, "none"),
        ("foreign-cpu", "other processes", now.foreign_cpu, f"{now.foreign_cpu or 0:.1%} of all cores"),
        ("steal", "stolen CPU time", now.steal, f"{now.steal or 0:.1%} of all cores"),
        ("memory-pressure", "memory pressure", now.memory_pressure, f"{now.memory_pressure or 0:.0%}"),
        ("gpu-processes", "others on the GPU", now.gpu_processes, "none"),
    )
    for code, subject, value, fine in shown:
        if code in found:
            fault = found[code]
            known = [one for one in busy or () if one.cores >= _WORTH_NAMING]
            text = fault.found + (f": {_list(known)}" if code == "foreign-cpu" and known else "")
            yield Check(code, subject, State.UNFIT, text, fault.remedy)
        elif value is not None:
            yield Check(code, subject, State.FIT, fine)
        else:
            yield Check(code, subject, State.UNKNOWN, "unknown")


def _disturbed(busy: Sequence[OtherProcess] | None, mac: bool) -> Iterator[Check]:
    for kind in BACKGROUND_PROCESSES:
        if kind.code == "spotlight" and not mac:
            continue
        if busy is None:
            yield Check(kind.code, kind.subject, State.UNKNOWN, "unknown")
        elif found := background_processes_running(kind, busy):
            yield Check(kind.code, kind.subject, State.UNFIT, f"{kind.doing}: {_list(found, family=True)}", kind.remedy)
        else:
            yield Check(kind.code, kind.subject, State.FIT, "none")


def _uptime(seconds: float | None, needs: Needs) -> Check:
    if seconds is None:
        return Check("uptime", "uptime", State.UNKNOWN, "unknown")
    if seconds < needs.settled_s:
        text = f"started {seconds:.0f} s ago: indexing, updates and syncing may still begin"
        return Check("uptime", "uptime", State.UNFIT, text, f"wait until it has run for {needs.settled_s:.0f} s")
    days = seconds / 86400
    text = f"{days:.1f} days" if days >= 1 else f"{seconds / 3600:.1f} hours"
    if days > needs.stale_days:
        return Check("uptime", "uptime", State.NOTE, text, "restart it when it is idle")
    return Check("uptime", "uptime", State.FIT, text)


def _enough(code: str, subject: str, free: int | None, needed: int, remedy: str) -> Check:
    if free is None:
        return Check(code, subject, State.UNKNOWN, "unknown")
    text = f"{free / _GIB:.1f} GiB"
    if free < needed:
        return Check(code, subject, State.UNFIT, f"{text} of at least {needed / _GIB:.1f} GiB", remedy)
    return Check(code, subject, State.FIT, text)


def _from(told: Fault | bool | None, code: str, subject: str, fine: str, state: State = State.UNFIT) -> Check:
    """Turn what a platform told (a fault, True for fine, None for unknown) into a check."""
    if isinstance(told, Fault):
        return Check(code, subject, state, told.found, told.remedy)
    return Check(code, subject, State.FIT, fine) if told else Check(code, subject, State.UNKNOWN, "unknown")


def _list(found: Sequence[OtherProcess], *, family: bool = False) -> str:
    shares = [(one, one.family if family else one.cores) for one in found[:_NAMED]]
    named = [f"{one.name} ({one.pid}) {share:.0%} of a core" for one, share in shares]
    more = len(found) - len(named)
    return ", ".join(named) + (f" and {more} more" if more > 0 else "")
