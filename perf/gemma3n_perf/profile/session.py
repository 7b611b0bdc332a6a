"""Profiling by one command on this machine: one workload after the other, each part stored as soon as it is there."""

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.duel.run import DuelSpec, Here, choose_workloads, duel
from gemma3n_perf.errors import InvalidError, NotMeasuredError, UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.conditions import ConditionProbe
from gemma3n_perf.hardware.nvidia import Gpu
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.hardware.types import Conditions, Fault
from gemma3n_perf.profile import record, sweeps
from gemma3n_perf.profile.rounds import time_plan
from gemma3n_perf.profile.run import Count, Profiler, Tools
from gemma3n_perf.profile.trace import in_package
from gemma3n_perf.profile.types import PARTS, Profile, WorkloadProfile
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Session:
    """What was profiled: ``profiles`` as ``path`` holds them now, and the ``parts`` that this session measured."""

    path: Path
    profiles: tuple[WorkloadProfile, ...]
    parts: tuple[str, ...]
    exit_code: int


def parse_parts(text: str | None) -> tuple[str, ...]:
    """Read ``split,floor``. Raises UsageError naming the parts there are."""
    if text is None:
        return PARTS
    named = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in named if part not in PARTS]
    if unknown or not named:
        raise UsageError(
            f"there is no part {unknown[0]!r}" if unknown else "no part is named",
            expected=f"of {', '.join(PARTS)}",
            remedy="--parts split,floor",
        )
    return tuple(part for part in PARTS if part in named)


def measure(
    here: Here, workloads: Sequence[str], checkpoint: str | None, parts: tuple[str, ...], *, quick: bool = False,
    budget_s: float | None = None, knobs: Sequence[str] = (), against_python: Path | None = None,
    against_fusion: str | None = None, capture: Path | None = None, fresh: bool = False, path: Path | None = None,
) -> Session:  # fmt: skip
    """Profile ``parts`` of every workload.

    ``workloads`` are ids, the chip's first one where there is none; ``checkpoint`` is a folder or hub id that is no
    preset. ``quick`` and ``budget_s`` are of the time plan. ``knobs`` are settings as text, the chip's own where there
    is none. ``against_python`` (an interpreter) and ``against_fusion`` compare the histogram; ``capture`` is where a
    Metal capture goes. ``fresh`` replaces what is stored; ``path`` is a file to store in instead of the baselines.
    Raises UsageError, NotComparableError, MalformedRecordError, and what loading raises.
    """
    ids, sources = choose_workloads(workloads, checkpoint, here)
    for workload in map(Workload.parse, ids):
        if workload.engine:
            raise UsageError(
                f"{workload} is not profiled: a profile takes mlx-vlm's model apart, step by step",
                expected=f"{workload.bare}, whose part engines has the others beside it",
            )
    settings = tuple(sweeps.Setting.parse(text) for text in knobs)
    if against_fusion:
        registry.compose(against_fusion)
    if against_python is not None and not os.access(against_python, os.X_OK):
        raise UsageError(f"--against-python {against_python}", expected="another environment's interpreter")
    if path is None:
        require_known(here.chip)
        path = record.profile_path(here.baselines, here.chip.chip_class)
    blank = Profile(record.SCHEMA, here.chip, here.stack, ())
    # What does not go with what is stored is refused now rather than after the measuring.
    stored = record.merged(None if fresh else record.PROFILES.find(path), blank)

    def keep(part: WorkloadProfile) -> None:
        nonlocal stored
        stored = record.merged(stored, replace(blank, workloads=(part,)))
        record.PROFILES.write(path, stored)

    measured, code = set[str](), 0
    for workload in map(Workload.parse, ids):
        source = sources.get(workload.checkpoint, workload.checkpoint)
        plan = time_plan(here.chip.vendor, workload.checkpoint, quick=quick, budget_s=budget_s)
        default = tuple(map(sweeps.Setting.parse, sweeps.DEFAULTS.get(here.chip.vendor, ())))[: plan.knobs]
        compare: dict[str, Count] = {}
        if against_python:
            compare[f"environment {against_python.name}"] = partial(_of_python, against_python, source)
        if against_fusion:
            compare[f"fusion {against_fusion}"] = partial(_of_fusion, against_fusion)
        profiler = Profiler(
            workload, source, here.root, parts, plan, here.stack, tools(here, workload, sources), settings or default,
            compare, capture,
        )  # fmt: skip
        found = profiler.measure(keep)
        measured |= found.taken.keys()
        if profiler.invalid:
            code = InvalidError.exit_code
        elif found.missing:
            code = max(code, NotMeasuredError.exit_code)
    profiles = {one.workload: one for one in stored.workloads}
    return Session(path, tuple(profiles[name] for name in ids), tuple(sorted(measured)), code)


def tools(here: Here, workload: Workload, sources: Mapping[str, str]) -> Tools:
    """Wire the real machine."""
    import mlx.core as mx

    process = psutil.Process()

    def compete(arms: Sequence[str], seconds: float) -> Mapping[str, Judgement]:
        spec = DuelSpec("here", tuple(arms), (str(workload),), seconds, sources=sources)
        found = duel(spec, here)
        return {arm: found.of(number)[str(workload)].judgement for number, arm in enumerate(arms)}

    def faults_of(conditions: Conditions) -> tuple[Fault, ...]:
        busy = (Fault(one.code, one.found, one.remedy) for one in here.cautions)
        return (*here.tools.faults_of(conditions), *busy)

    # A probe of its own: duels use the machine's meanwhile.
    return Tools(
        clock=time.perf_counter, device=MlxDevice(), probe=ConditionProbe(this_machine(), os.getpid()),
        faults_of=faults_of, run=run_command, compete=compete,
        reads=sweeps.library_reads(Path(mx.__file__).parent),
        today=lambda: datetime.now(UTC).isoformat(timespec="seconds"), rng=random.Random(), note=here.tools.note,
        nvml_busy=_nvml_busy() if here.stack.backend == "cuda" else None,
        thread_times=lambda: {one.id: one.user_time + one.system_time for one in process.threads()},
        own_thread=threading.get_native_id(),
    )  # fmt: skip


def _nvml_busy() -> Callable[[], float] | None:
    system = this_machine()
    gpu = Gpu.find(system, system.accelerator().info)
    if gpu is None or gpu.ask("nvmlDeviceGetUtilizationRates") is None:
        return None

    def busy() -> float:
        rates: Any = gpu.ask("nvmlDeviceGetUtilizationRates")
        if rates is None:
            raise NotMeasuredError("NVML no longer tells the GPU's busy share")
        return float(rates.gpu)

    return busy


def _of_python(python: Path, source: str, config: dict[str, Any], position: int) -> tuple[Graph, str]:
    """Count in another environment with this suite's code. Raises NotMeasuredError with its last output."""
    code = in_package(
        "from importlib import metadata; from gemma3n_perf.__main__ import run; "
        "print('mlx', metadata.version('mlx') + ', mlx-vlm', metadata.version('mlx-vlm'), file=sys.stderr); "
        "sys.exit(run(sys.argv[1:], sys.stdout, sys.stderr))"
    )
    done = run_command((str(python), "-P", "-c", code, "graph", source, "--position", str(position), "--json"), 300.0)
    try:
        graph = msgspec.json.decode(done.out.encode(), type=Graph)
    except msgspec.MsgspecError as error:
        raise NotMeasuredError(
            f"{python.name} does not count the graph: {done.last_output}",
            expected="an interpreter with mlx, mlx-vlm and this suite's needs",
        ) from error
    return graph, next((line for line in done.err.splitlines() if line.startswith("mlx ")), "another environment")


def _of_fusion(name: str, config: dict[str, Any], position: int) -> tuple[Graph, str]:
    fusion = registry.compose(name)
    return graphs.count(config, position=position, apply=fusion.apply), fusion.summary
