"""Whether a machine is fit to measure, found out before a session and not after it was thrown away.

Everything a run would be discarded for is checked here first, and what will start to disturb in a minute. What the
platform does not report is shown as unknown, and is no reason to refuse.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TextIO

import msgspec

from gemma3n_perf.errors import BadConditionsError
from gemma3n_perf.hardware import apple, apple_gpu, linux
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.lock import LOCK_PATH, holder_elsewhere
from gemma3n_perf.hardware.other_processes import (
    BACKGROUND_PROCESSES,
    OtherProcess,
    listed,
    other_processes,
    snapshot,
)
from gemma3n_perf.hardware.stack import mlx_wheel
from gemma3n_perf.hardware.system import System, this_machine
from gemma3n_perf.hardware.types import Conditions, Fault

# Of the JSON; a change of its names raises it.
SCHEMA = 1
SAMPLE_S, LOOK_S = 2.0, 1.0
BACK_OFF_S = (5.0, 120.0)
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
    """One thing checked: what was found, and what to do where it is not as it should be."""

    code: str
    subject: str
    state: State
    found: str
    remedy: str | None = None

    @classmethod
    def of(cls, code: str, subject: str, result: Fault | str | None, faulty: State = State.UNFIT) -> "Check":
        """Return the check of a fault, whose state is then ``faulty``, of what is fine, or of what is unknown."""
        if isinstance(result, Fault):
            return cls(code, subject, faulty, result.found, result.remedy)
        return cls(code, subject, State.UNKNOWN, "unknown") if result is None else cls(code, subject, State.FIT, result)


@dataclass(frozen=True, slots=True)
class Fitness:
    """All checks of one examination, and the conditions sampled with it."""

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
    """What a session needs of a machine: bytes of free memory and disk, and seconds and days of uptime.

    A machine that has just started indexes, updates and syncs; one that runs for months has leaked memory.
    """

    memory_bytes: int = 2 * _GIB
    disk_bytes: int = 10 * _GIB
    settled_s: float = 300.0
    stale_days: float = 60.0


@dataclass(frozen=True, slots=True)
class Doctor:
    """Examines one machine. ``root`` is the process whose tree counts as ours, ``folder`` where checkpoints live."""

    system: System
    root: int
    limits: Limits
    folder: Path
    needs: Needs = Needs()
    lock: Path = LOCK_PATH
    sleep: Callable[[float], None] = time.sleep

    @classmethod
    def here(cls, folder: Path, needs: Needs) -> "Doctor":
        """Return the doctor of this machine."""
        return cls(this_machine(), os.getpid(), Limits.for_cores(os.cpu_count() or 1), folder, needs)

    def examine(self) -> Fitness:
        """Watch the machine for two seconds in which nothing of ours runs, and return all that was found."""
        conditions, busy, checks = self._watch(SAMPLE_S)
        holder = holder_elsewhere(self.lock)
        measuring = Fault("measuring", f"being measured by {holder}", "wait for it to end, or stop it")
        first = Check.of("measuring", "other measurements", measuring if holder else "none")
        return Fitness((first, *checks, *self._background(busy), *self._machine()), conditions)

    def look(self) -> Fitness:
        """Watch it for a second, and return only what a run would be discarded for, and use of a Mac's GPU."""
        conditions, _, checks = self._watch(LOOK_S)
        return Fitness(checks, conditions)

    def wait(
        self, wait_s: float, on_unfit: Callable[[Fitness, float], None], look: Callable[[], Fitness] | None = None
    ) -> Fitness:
        """Examine (or ``look``) until the machine is fit or ``wait_s`` seconds are over, pausing longer each time.

        ``on_unfit`` is given what was found each time it is not fit, and the pause that follows, seconds.
        """
        deadline, pause = self.system.clock() + wait_s, BACK_OFF_S[0]
        while True:
            found = (look or self.examine)()
            left = deadline - self.system.clock()
            if found.fit or left <= 0:
                return found
            on_unfit(found, min(pause, left))
            self.sleep(min(pause, left))
            pause = min(2 * pause, BACK_OFF_S[1])

    def _watch(self, seconds: float) -> tuple[Conditions, tuple[OtherProcess, ...] | None, tuple[Check, ...]]:
        """Return the conditions of so many seconds, the processes behind them, and the checks of both."""
        system = self.system
        probe = ConditionProbe(system, self.root)
        before, began = snapshot(system), system.clock()
        mac = system.platform == "darwin"
        gpu_s = apple_gpu.seconds_by_process(system) if mac else None
        probe.start()
        self.sleep(seconds)
        of_gpu: tuple[Check, ...] = ()
        if mac:
            kernels = Check.of("neural-accelerator", "neural accelerator", apple.neural_kernels(system, mlx_wheel()))
            of_gpu = (self._use_of_gpu(gpu_s, system.clock() - began), kernels)
        conditions = probe.stop()
        after, elapsed_s = snapshot(system), system.clock() - began
        busy = None
        if before is not None and after is not None and elapsed_s > 0:
            busy = other_processes(before, after, elapsed_s, system.tree(self.root))
        names = {
            "foreign-cpu": listed([one for one in busy or () if one.cores >= _WORTH_NAMING]),
            "gpu-processes": ", ".join(
                f"{after[pid].name} ({pid})" for pid in sorted(probe.others_on_gpu()) if after and pid in after
            ),
        }
        return conditions, busy, (*self._usage(conditions, names), *of_gpu)

    def _use_of_gpu(self, before: Mapping[int, float] | None, seconds: float) -> Check:
        """Check how much a Mac's GPU worked for others since ``before``, or at all where it is not told for whom."""
        system = self.system
        after, own = apple_gpu.seconds_by_process(system), system.tree(self.root)
        share = apple_gpu.foreign(before, after, seconds, own)
        use = apple.gpu_use(system) if share is None else share
        if use is None or use < self.limits.foreign_gpu:
            return Check.of("gpu-busy", "use of the GPU", None if use is None else "idle")
        used = {pid: time - (before or {}).get(pid, 0.0) for pid, time in (after or {}).items() if pid not in own}
        busiest = f"process {max(used, key=lambda pid: used[pid])}" if share is not None else "something"
        return Check.of(
            "gpu-busy", "use of the GPU", Fault("gpu-busy", f"{busiest} uses {use:.0%} of the GPU", apple.GPU_REMEDY)
        )

    def _usage(self, now: Conditions, names: Mapping[str, str]) -> Iterator[Check]:
        """Check every condition a run is discarded for, in the order of importance; ``names`` are the culprits'."""
        found = {fault.code: fault for fault in faults(now, self.limits)}
        for code in found:
            if names.get(code):
                found[code] = replace(found[code], found=f"{found[code].found}: {names[code]}")
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
            yield Check.of(code, subject, found.get(code, None if value is None else fine))

    def _background(self, busy: Sequence[OtherProcess] | None) -> Iterator[Check]:
        """Check what will disturb in a minute, if it does not already."""
        for kind in BACKGROUND_PROCESSES:
            if kind.code != "spotlight" or self.system.platform == "darwin":
                yield Check.of(kind.code, kind.subject, kind.fault_of(busy))

    def _machine(self) -> Iterator[Check]:
        """Check uptime, memory, disk and settings."""
        system, needs = self.system, self.needs
        mac = system.platform == "darwin"
        facts = apple if mac else linux
        yield _uptime(facts.uptime_s(system), needs)
        yield _enough("memory", facts.free_memory_bytes(system), needs.memory_bytes,
                      "close programs, or measure a smaller checkpoint")  # fmt: skip
        yield _enough("disk", _free_disk_bytes(system, self.folder), needs.disk_bytes,
                      f"free some space under {self.folder}")  # fmt: skip
        if mac:
            yield Check.of("backup-running", "Time Machine", apple.backup(system))
        yield Check.of("sleep", "sleep settings", facts.sleep(system), State.NOTE)
        if not mac:
            yield Check.of("clock-capped", "CPU clock", linux.clock_cap(system), State.NOTE)


def _uptime(seconds: float | None, needs: Needs) -> Check:
    if seconds is None:
        return Check.of("uptime", "uptime", None)
    if seconds < needs.settled_s:
        text = f"started {seconds:.0f} s ago: indexing, updates and syncing may still begin"
        settled = Fault("uptime", text, f"wait until it has run for {needs.settled_s:.0f} s")
        return Check.of("uptime", "uptime", settled)
    days = seconds / 86400
    text = f"{days:.1f} days" if days >= 1 else f"{seconds / 3600:.1f} hours"
    stale = Fault("uptime", text, "restart it when it is idle")
    return Check.of("uptime", "uptime", stale if days > needs.stale_days else text, State.NOTE)


def _enough(code: str, free: int | None, needed: int, remedy: str) -> Check:
    text = None if free is None else f"{free / _GIB:.1f} GiB"
    short = Fault(code, f"{text} of at least {needed / _GIB:.1f} GiB", remedy)
    return Check.of(code, f"free {code}", short if free is not None and free < needed else text)


def _free_disk_bytes(system: System, folder: Path) -> int | None:
    """Return the free space of the file system that ``folder``, or its nearest existing parent, is on."""
    for path in (folder, *folder.parents):
        lines = (system.run(("df", "-Pk", str(path))) or "").strip().splitlines()
        # The device's name may hold spaces, so the columns are counted from the percentage.
        match = re.search(r"\s(\d+)\s+\d+%\s", lines[-1]) if len(lines) > 1 else None
        if match:
            return int(match[1]) * 1024
    return None


def consult(doctor: Doctor, wait_s: float, json: bool, out: TextIO) -> int:
    """Let ``doctor`` examine its machine, print the diagnosis and return the exit code: 0 where fit, 4 where not.

    Each examination that finds it unfit, while ``wait_s`` seconds are not over, prints why and how long it waits.
    """
    looks = 1

    def unfit(found: Fitness, pause_s: float) -> None:
        nonlocal looks
        looks += 1
        if not json:
            out.write(f"waiting {pause_s:.0f} s: {'; '.join(f'{one.code}: {one.found}' for one in found.unfit)}\n")
            out.flush()

    found = doctor.wait(wait_s, unfit)
    chip_class = detect(doctor.system).chip_class
    if json:
        facts = {"schema": SCHEMA, "chip_class": chip_class, "fit": found.fit, "looks": looks}
        facts |= {"checks": found.checks, "conditions": found.conditions}
        out.write(msgspec.json.format(msgspec.json.encode(facts), indent=2).decode() + "\n")
    else:
        out.write(_text(chip_class, found))
    return 0 if found.fit else BadConditionsError.exit_code


def _text(chip_class: str, found: Fitness) -> str:
    """What must change comes first, each with its remedy."""
    unfit, notes = found.unfit, [check for check in found.checks if check.state is State.NOTE]
    reasons = f"not fit to measure, for {len(unfit)} reason{'' if len(unfit) == 1 else 's'}"
    lines = [f"{chip_class}: {reasons if unfit else 'fit to measure'}"]
    for check in (*unfit, *notes):
        lines += ["", f"{check.state} {check.code}: {check.found}", f"  next: {check.remedy}"]
    width = max(len(check.subject) for check in found.checks)
    lines.append("")
    for check in found.checks:
        lines.append(f"{check.subject:<{width}}  {'unfit, see above' if check in unfit else check.found}")
    return "\n".join(lines) + "\n"
