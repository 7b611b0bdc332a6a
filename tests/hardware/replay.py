"""Recorded machines, asked again: files that ``studies.record_machine`` writes, played back as a System."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gemma3n_perf.hardware.system import Accelerator, CpuTimes, System

RECORDED = Path(__file__).parent / "recorded"
NAMES = tuple(sorted(path.stem for path in RECORDED.glob("*.json")))
ROOT_PID = 100


class NVMLError(Exception):
    """Stands in for pynvml's error, which carries NVML's code."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value


class NVMLLibraryMismatchError(Exception):
    """Stands in for what the binding raises on a driver older than itself."""


class ReplayedNvml:
    """Answers NVML calls from a recording; ``answers`` may be changed to play a machine in trouble."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = dict(results)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            key = " ".join([name, *(str(argument) for argument in arguments if isinstance(argument, int))])
            result = self.results.get(key, {"error": 3})
            if isinstance(result, dict) and "error" in result:
                raise NVMLLibraryMismatchError if result["error"] == "mismatch" else NVMLError(result["error"])
            return _objects(result)

        return call


class Machine:
    """A recorded machine with hands on its clock, CPUs and processes.

    ``time_s`` is the clock; ``idle_s`` and ``steal_s`` are the counters over all ``cpus`` since boot; ``processes``
    maps each of our processes to the CPU seconds it has used; ``alive`` maps ids of others to their leaders.
    """

    def __init__(self, name: str, cpus: int = 2) -> None:
        self.document = json.loads((RECORDED / f"{name}.json").read_text())
        self.commands: dict[str, str | None] = dict(self.document["commands"])
        self.files: dict[str, str | None] = dict(self.document["files"])
        self.nvml = None if self.document["nvml"] is None else ReplayedNvml(self.document["nvml"])
        self.requests: Counter[str] = Counter()
        self.cpus = cpus
        self.time_s = 1000.0
        self.total_s = 5000.0
        self.idle_s = 4000.0
        self.steal_s: float | None = 10.0
        self.processes: dict[int, float] = {ROOT_PID: 1.0}
        self.alive: dict[int, int] = {}
        self.gpu_states: Callable[[], dict[str, int] | None] = lambda: None
        self.gpu_work_s: Callable[[], float | None] = lambda: None

    @property
    def system(self) -> System:
        """The machine as the suite sees it."""
        affinity = self.document["affinity"]
        return System(
            platform=self.document["platform"],
            machine=self.document["machine"],
            run=self._run,
            read=self.files.get,
            glob=lambda pattern: sorted(path for path in self.files if Path(path).match(pattern)),
            accelerator=lambda: Accelerator(**self.document["accelerator"]),
            nvml=lambda: self.nvml,
            affinity=lambda: None if affinity is None else frozenset(affinity),
            cpu_times=lambda: CpuTimes(self.total_s, self.idle_s, self.steal_s, self.cpus),
            load1=lambda: 0.5,
            tree=lambda root: frozenset(self.processes),
            seconds=self.processes.get,
            leader=lambda pid: pid if pid in self.processes else self.alive.get(pid),
            clock=lambda: self.time_s,
            gpu_states=lambda: self.gpu_states(),
            gpu_work_s=lambda: self.gpu_work_s(),
        )

    def passes(self, seconds: float, own: float = 0.0, foreign: float = 0.0, steal: float = 0.0) -> None:
        """Let time pass in which ours, others and the hypervisor used so many CPU seconds; the rest was idle."""
        self.time_s += seconds
        self.total_s += seconds * self.cpus
        self.processes[ROOT_PID] += own
        self.idle_s += seconds * self.cpus - own - foreign - steal
        if self.steal_s is not None:
            self.steal_s += steal

    def _run(self, argv: Any) -> str | None:
        command = " ".join(argv)
        self.requests[command] += 1
        return self.commands.get(command)


def recorded(name: str) -> System:
    """Return a recorded machine at rest."""
    return Machine(name).system


def without(name: str, *commands: str) -> System:
    """Return a recorded machine on which some commands fail."""
    system = recorded(name)
    return replace(system, run=lambda argv: None if " ".join(argv).startswith(commands) else system.run(argv))


def _objects(result: Any) -> Any:
    if isinstance(result, dict):
        return SimpleNamespace(**result)
    if isinstance(result, list):
        return [_objects(item) for item in result]
    return result
