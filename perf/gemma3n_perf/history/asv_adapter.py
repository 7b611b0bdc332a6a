"""What ``perf/asv_suite`` measures with: the harness of ``pytest perf/``, under the same lock and conditions.

Opinion: asv only starts it. What asv would do by itself (timing, repeating, warming up) is done here, once for all
benchmarks, and a workload that fails takes no other with it.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.machine import keep_awake, measuring_lock
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.workload import cache, forge
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload, defaults

RUNS = {"cpu": 10}
RUNS_ON_GPU = 6
_WAIT_S = 60.0
Measured = dict[str, dict[str, Any]]
"""By workload: ``{"tpot_s": [...]}``, or ``{"failure": "..."}``. Plain types: asv pickles it between processes."""


class Runs(Protocol):
    """The part of ``measure.bench.Bench`` that is needed here."""

    def wanted(self, workload: Workload) -> int:
        """How many runs to take."""

    def take_run(self, workload: Workload) -> Any:
        """Take one run that counts."""


def default_workloads() -> list[str]:
    """Return the ids of what this chip measures by default."""
    return [str(workload) for workload in defaults(detect().vendor)]


def measure_all(
    workloads: Sequence[str], machine: Callable[[], AbstractContextManager[Runs]] | None = None
) -> Measured:
    """Measure every workload in turn; a failure is kept with its workload. Raises MachineBusyError."""
    measured: Measured = {}
    with (machine or this_bench)() as bench:
        for name in workloads:
            workload = Workload.parse(name)
            try:
                runs = [bench.take_run(workload) for _ in range(bench.wanted(workload))]
            except PerfError as error:
                measured[name] = {"failure": str(error)}
                continue
            measured[name] = {"tpot_s": [run.tpot_s for run in runs]}
    return measured


def samples(measured: Measured, workload: str) -> dict[str, Any]:
    """Return seconds per token in the form that asv makes statistics of. Raises RuntimeError for a failed workload."""
    one = measured[workload]
    if "failure" in one:
        raise RuntimeError(one["failure"])
    return {"samples": list(one["tpot_s"]), "number": 1}


def rates(measured: Measured, workload: str) -> dict[str, Any]:
    """Return tok/s of the same runs, in the same form. Raises RuntimeError for a failed workload."""
    taken = samples(measured, workload)
    return taken | {"samples": [1 / value for value in taken["samples"]]}


@contextmanager
def this_bench() -> Iterator[Runs]:
    """Hold this machine and yield its bench, checkpoints forged. Raises MachineBusyError."""
    from gemma3n_perf.bench.bench import Bench  # MLX takes seconds to import

    chip, root = detect(), cache.checkpoints_root()
    with measuring_lock(wait_s=_WAIT_S), keep_awake():
        for name in dict.fromkeys(workload.checkpoint for workload in defaults(chip.vendor)):
            if not forge.is_forged(PRESETS[name], root):
                forge.forge(PRESETS[name], root, progress=lambda written: None)
        yield Bench(
            root,
            ConditionProbe.on(this_machine(), os.getpid()),
            partial(faults, limits=Limits.for_cores(chip.cpu_cores or os.cpu_count() or 1)),
            runs=RUNS.get(chip.vendor, RUNS_ON_GPU),
            count_graph=_uncounted,
            note=lambda text: print(text, file=sys.stderr),
        )


def _uncounted(workload: Workload) -> Any:
    raise PerfError(f"{workload}: asv stores no operation counts", expected="pytest perf/ for those")
