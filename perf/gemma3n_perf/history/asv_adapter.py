"""What ``perf/asv_suite`` measures with: the harness of ``pytest perf/``, under the same lock and conditions.

asv only starts it. What asv would do by itself (timing, repeating, warming up) is done here, once for all
benchmarks, and a workload that fails takes no other with it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.machine import BusyPolicy, open_machine
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.history.asv_files import machine_axes
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from gemma3n_perf.workload.workload import Workload, defaults

_WAIT_S = 60.0
Measured = dict[str, dict[str, Any]]
"""By workload: ``{"tpot_s": [...]}``, or ``{"failure": "..."}``. Plain types: asv pickles it between processes."""


def default_workloads() -> list[str]:
    """Return the ids of what this chip measures by default."""
    return [str(workload) for workload in defaults(detect().vendor)]


@contextmanager
def this_bench() -> Iterator[Any]:
    """Hold this machine and yield its bench, checkpoints forged. Raises MachineBusyError."""
    from gemma3n_perf.bench.bench import Bench, usual_runs  # MLX takes seconds to import

    root = checkpoints_root()
    with open_machine(sys.stderr, BusyPolicy(_WAIT_S)) as machine:
        for name in dict.fromkeys(workload.checkpoint for workload in defaults(machine.chip.vendor)):
            ensure_forged(PRESETS[name], root, machine.note)
        yield Bench(
            root,
            machine.probe,
            machine.faults_of,
            runs=usual_runs(machine.chip.vendor),
            count_graph=lambda workload: None,
            note=lambda text: print(text, file=sys.stderr),
        )


def measure_all(workloads: Sequence[str], machine: Callable[[], AbstractContextManager[Any]] = this_bench) -> Measured:
    """Measure every workload in turn; a failure is kept with its workload. Raises MachineBusyError."""
    measured: Measured = {}
    with machine() as bench:
        for name in workloads:
            workload = Workload.parse(name)
            try:
                measured[name] = {"tpot_s": [bench.take_run(workload).tpot_s for _ in range(bench.required(workload))]}
            except PerfError as error:
                measured[name] = {"failure": str(error)}
    return measured


def samples(measured: Measured, workload: str) -> dict[str, Any]:
    """Return seconds per token in the form that asv makes statistics of. Raises RuntimeError for a failed workload."""
    one = measured[workload]
    if "failure" in one:
        raise RuntimeError(" ".join(one["failure"].split()))
    return {"samples": list(one["tpot_s"]), "number": 1}


def rates(measured: Measured, workload: str) -> dict[str, Any]:
    """Return tok/s of the same runs, in the same form. Raises RuntimeError for a failed workload."""
    taken = samples(measured, workload)
    return taken | {"samples": [1 / value for value in taken["samples"]]}


def save_machine(chip: Chip, path: Path | None) -> Path:
    """Tell asv that this machine is its chip class, in asv's own file or ``path``; returns it. Raises UsageError."""
    from asv.machine import MachineCollection  # asv takes a moment to import
    from asv.util import UserError

    path = path or Path(MachineCollection.get_machine_file_path())
    try:
        MachineCollection.save(chip.chip_class, machine_axes(chip), _path=str(path))
    except (OSError, ValueError, TypeError, UserError) as error:
        raise UsageError(f"{path} cannot be written: {error}", expected="asv's own file of machines") from error
    return path
