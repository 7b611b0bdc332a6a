"""The machine during one ``pytest perf/`` session: locked, kept awake, checkpoints forged, and what measures on it."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TextIO

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.machine import keep_awake, measuring_lock
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.pytest_plugin.options import Options
from gemma3n_perf.workload import forge
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload

RUNS = {"cpu": 10}
RUNS_ON_GPU = 6


@contextmanager
def held(
    options: Options,
    chip: Chip,
    workloads: Sequence[Workload],
    *,
    count_graph: Callable[[Workload], Graph],
    source_of: Callable[[str], str],
    err: TextIO,
) -> Iterator[Bench]:
    """Hold the machine and yield what measures ``workloads`` on it; ``source_of`` tells where a checkpoint is.

    Raises MachineBusyError and what forging raises.
    """
    progress = Progress(err)
    with ExitStack() as stack:
        stack.enter_context(measuring_lock())
        awake = stack.enter_context(keep_awake())
        stack.callback(progress.clear)
        progress.note(awake)
        for name in dict.fromkeys(workload.checkpoint for workload in workloads):
            _forge(name, options, progress)
        limits = Limits.for_cores(chip.cpu_cores or os.cpu_count() or 1)
        yield Bench(
            options.root,
            ConditionProbe.on(this_machine(), os.getpid()),
            partial(faults, limits=limits),
            runs=options.runs or RUNS.get(chip.vendor, RUNS_ON_GPU),
            budget_s=options.time_budget / len(workloads) if options.time_budget else None,
            planted=options.planted,
            count_graph=count_graph,
            note=progress.note,
            with_towers=frozenset(one.checkpoint for one in workloads if one.modality == "image"),
            source_of=source_of,
        )


def _forge(name: str, options: Options, progress: Progress) -> None:
    if name not in PRESETS or (options.root / PRESETS[name].directory).is_dir():
        return
    total = forge.size(PRESETS[name])
    done = 0

    def wrote(written: int) -> None:
        nonlocal done
        done += written
        progress.note(f"forging {name}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")

    forge.forge(PRESETS[name], options.root, progress=wrote)
