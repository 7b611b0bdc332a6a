"""``gemma3n-perf profile``: where a token's time goes here, the streaming floor, and whether a fusion is justified."""

import argparse
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec
import psutil

from gemma3n_perf.cli.duel import chosen
from gemma3n_perf.decode.decoder import MlxDevice
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.errors import InvalidError, NotMeasuredError, UsageError
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.nvidia import Gpu
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.profile import record as store
from gemma3n_perf.profile import sweeps
from gemma3n_perf.profile.run import Profiler, ProfileRequest, Tools
from gemma3n_perf.profile.time_plan import time_plan
from gemma3n_perf.profile.types import PARTS, Profile, WorkloadProfile
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.workload.workload import Workload

HELP = "find where a token's time goes, and whether a fusion is justified"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--workload", action="append", default=[], metavar="ID", help="may be repeated (default: the chip's first)"
    )
    parser.add_argument(
        "--checkpoint", metavar="FOLDER_OR_HUB_ID", help="where the checkpoint is, if it is not a preset"
    )
    parser.add_argument("--parts", metavar="LIST", help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, lengths and knobs")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="for all parts of a workload; their fewest rounds are taken anyway",
    )
    parser.add_argument(
        "--knob",
        action="append",
        default=[],
        metavar="NAME=VALUE[+NAME=VALUE]",
        help="a setting to duel, in place of the chip's own list; may be repeated",
    )
    parser.add_argument(
        "--against-python",
        type=Path,
        metavar="PYTHON",
        help="compare the histogram with that of another environment's interpreter",
    )
    parser.add_argument(
        "--against-fusion", metavar="NAME", help="compare the histogram with that of a fusion, or several joined by +"
    )
    parser.add_argument("--metal-capture", type=Path, metavar="FILE", help="part trace on a Mac: write a .gputrace")
    parser.add_argument("--fresh", action="store_true", help="replace the stored profile instead of adding parts to it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write there, and leave the baselines alone")
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    parser.add_argument("--page", action="store_true", help="measure nothing: write the pages of all stored profiles")
    parser.add_argument(
        "--check", action="store_true", help="with --page: write nothing, exit 1 if a page is not current"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="with --page (default: docs/ of the checkout)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Profile and print, or write pages. Raises UsageError, NotComparableError, and what loading raises."""
    if args.page:
        return page(in_checkout("baselines", args.baselines), in_checkout("docs", args.docs), args.check, out)
    if args.check:
        raise UsageError("--check goes with --page", expected="--page --check")
    parts = parse_parts(args.parts)
    with dueling.machine(args.baselines, sys.stderr) as here:
        return profile(args, parts, here, out)


def parse_parts(text: str | None) -> tuple[str, ...]:
    """Read ``split,floor``. Raises UsageError naming the parts there are."""
    if text is None:
        return PARTS
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in asked if part not in PARTS]
    if unknown or not asked:
        raise UsageError(
            f"there is no part {unknown[0]!r}" if unknown else "no part is named",
            expected=f"of {', '.join(PARTS)}",
            remedy="--parts split,floor",
        )
    return tuple(part for part in PARTS if part in asked)


def profile(args: argparse.Namespace, parts: tuple[str, ...], here: dueling.Here, out: TextIO) -> int:
    """Profile every workload; each part is stored as soon as it is there. Returns the exit code."""
    workloads, sources = chosen(args, here)
    target = args.json or store.profile_path(here.baselines, here.chip.chip_class)
    if args.json is None:
        require_known(here.chip)
    blank = Profile(store.SCHEMA, here.chip, here.stack, ())
    stored = None if args.fresh else store.read(target)
    store.merged(stored, blank)  # refused now rather than after the measuring
    settings = tuple(sweeps.Setting.parse(text) for text in args.knob)
    measured, code = [], 0
    for name in workloads:
        workload = Workload.parse(name)
        source = sources.get(workload.checkpoint, workload.checkpoint)
        asked = time_plan(here.chip.vendor, workload.checkpoint, quick=args.quick, budget_s=args.budget)
        default = [sweeps.Setting.parse(text) for text in sweeps.DEFAULTS.get(here.chip.vendor, ())]
        request = ProfileRequest(
            workload, source, here.root, parts, asked, here.chip.vendor, here.stack.backend,
            here.stack.commit, here.stack.dirty, settings or tuple(default[: asked.knobs]),
            _comparisons(args, source), args.metal_capture,
        )  # fmt: skip
        profiler = Profiler(request, tools(here, workload, sources))

        def keep(part: WorkloadProfile) -> None:
            nonlocal stored
            stored = store.merged(stored, replace(blank, workloads=(part,)))
            store.write(target, stored)

        found = profiler.measure(keep)
        measured.append(found)
        code = max(
            code, InvalidError.exit_code if profiler.invalid else NotMeasuredError.exit_code if found.missing else 0
        )
    from gemma3n_perf.profile import report as profile_text

    assert stored is not None
    for found in measured:
        whole = next(one for one in stored.workloads if one.workload == found.workload)
        out.write(profile_text.render(whole) + "\n")
    out.write(
        f"{target}: {', '.join(sorted({part for one in measured for part in one.taken}) or ['nothing'])} stored\n"
    )
    return code


def tools(here: dueling.Here, workload: Workload, sources: Mapping[str, str]) -> Tools:
    """Wire the real machine."""
    import mlx.core as mx

    process, chip = psutil.Process(), here.chip

    def compete(arms: Sequence[str], seconds: float) -> Mapping[str, Judgement]:
        asked = dueling.Field("here", tuple(arms), (str(workload),), seconds, policy=Policy(), sources=sources)
        found = dueling.contested(asked, here)
        return {key[1].partition(":")[2]: judgement for key, (_, judgement) in found.items()}

    def thread_times() -> dict[int, float]:
        return {one.id: one.user_time + one.system_time for one in process.threads()}

    # A probe of its own: duels use the machine's meanwhile.
    return Tools(
        clock=time.perf_counter, device=MlxDevice(), probe=ConditionProbe.on(this_machine(), os.getpid()),
        faults_of=partial(faults, limits=Limits.for_cores(chip.cpu_cores or os.cpu_count() or 1)),
        run=run_command, compete=compete, reads=sweeps.library_reads(Path(mx.__file__).parent),
        environ=here.stack.knobs, today=lambda: datetime.now(UTC).isoformat(timespec="seconds"),
        rng=random.Random(), note=here.tools.note, nvml_busy=_nvml_busy() if here.stack.backend == "cuda" else None,
        thread_times=thread_times, own_thread=threading.get_native_id,
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


def _comparisons(
    args: argparse.Namespace, source: str
) -> dict[str, Callable[[dict[str, Any], int], tuple[Graph, str]]]:
    found: dict[str, Callable[[dict[str, Any], int], tuple[Graph, str]]] = {}
    if args.against_python:
        found[f"environment {args.against_python.name}"] = partial(_of_python, args.against_python, source)
    if args.against_fusion:
        found[f"fusion {args.against_fusion}"] = partial(_of_fusion, args.against_fusion)
    return found


def _of_python(python: Path, source: str, config: dict[str, Any], position: int) -> tuple[Graph, str]:
    """Count in another environment with this suite's code. Raises NotMeasuredError with its last words."""
    package = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {package!r}); from importlib import metadata; "
        "from gemma3n_perf.__main__ import run; "
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
    from gemma3n_perf.decode import graph as graphs
    from gemma3n_perf.fusions import registry

    fusion = registry.compose(name)
    return graphs.count(config, position=position, apply=fusion.apply), fusion.summary


def page(baselines: Path, docs: Path, check: bool, out: TextIO) -> int:
    """Write the pages of all stored profiles, or check that they are current."""
    from gemma3n_perf.profile import page as profile_page
    from gemma3n_perf.profile.tried import tried
    from gemma3n_perf.report import pages

    profiles = store.read_all(baselines)
    if not profiles:
        raise UsageError(
            f"no profile below {baselines}",
            expected="a folder of baselines in which a chip class has a profile.json",
            remedy="pass --baselines DIR, or take one: gemma3n-perf profile",
        )
    files = profile_page.build(
        profiles, {one.chip.chip_class: tried(baselines, one.chip.chip_class) for one in profiles}
    )
    wanted = {docs / path: data for path, data in files.items()}
    folder = docs / profile_page.FOLDER
    present = [*folder.glob("*.md"), *folder.glob("*.svg")]
    return pages.check(wanted, present, out) if check else pages.refresh(wanted, present, folder, out)
