"""``gemma3n-perf duel BASELINE CANDIDATE``: two arms, paired and interleaved, until something is shown."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.options import (
    add_explain,
    add_json,
    count,
    explain,
    file_of,
    percent,
    printed_anyway,
    seconds,
    write_json,
)
from gemma3n_perf.decode.engines import requested
from gemma3n_perf.duel import record as store
from gemma3n_perf.duel import report
from gemma3n_perf.duel.arms import GRAMMAR
from gemma3n_perf.duel.lookup import require_arms
from gemma3n_perf.duel.run import DuelResult, DuelSpec, Here, choose_workloads, duel, machine, record_of
from gemma3n_perf.hardware.machine import BusyPolicy
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.store.files import require_folder, require_writable

HELP = "compare two arms: paired, interleaved, with a verdict"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = f"An arm is {GRAMMAR}."
    parser.add_argument("baseline", metavar="BASELINE", help="the arm to compare with, for instance ref:main")
    parser.add_argument("candidate", metavar="CANDIDATE", help="the arm to judge, for instance here")
    add_workload_arguments(parser)
    add_budget(parser, "measuring time for each workload, fixed before the start")
    parser.add_argument(
        "--sessions",
        type=count("--sessions"),
        default=1,
        metavar="N",
        help="spread the budget over N sessions; a win or loss must then show in each",
    )
    add_margin(parser)
    parser.add_argument("--aa", action="store_true", help="the same arm on both sides, to see what error shows")
    add_outputs_argument(parser)
    add_json(parser, "the record, raw blocks included,")


def add_budget(parser: argparse.ArgumentParser, what: str, default_s: float = Policy().budget_s) -> None:
    """Declare how long may be measured; ``what`` says of what."""
    parser.add_argument(
        "--budget", type=seconds("--budget"), default=default_s, metavar="SECONDS",
        help=f"{what} (default: %(default)g)",
    )  # fmt: skip


def add_margin(parser: argparse.ArgumentParser) -> None:
    """Declare how near to nothing an effect must be shown to be for no-change."""
    parser.add_argument(
        "--margin",
        type=percent("--margin"),
        default=100 * Policy().margin,
        metavar="PERCENT",
        help="no-change is an interval within this of nothing (default: %(default)g)",
    )


def add_outputs_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the way to compare programs that put out something else."""
    parser.add_argument(
        "--outputs-may-differ",
        action="store_true",
        help="compare arms whose tokens or logits differ, with a caution; without it they are invalid",
    )


def add_workload_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that duels takes."""
    parser.add_argument(
        "--workload",
        action="append",
        type=_workload_id,
        default=[],
        metavar="ID",
        help="workload id; may be repeated (default: the chip's first)",
    )
    parser.add_argument(
        "--checkpoint", metavar="CHECKPOINT", help="where the workloads' checkpoint is, if it is not a preset"
    )
    add_machine_arguments(parser)


def _workload_id(text: str) -> str:
    """Return an id as it was given. Raises UsageError for one that is none, before anything is opened."""
    requested(text)
    return text


def add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what every command that measures takes."""
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    add_busy_arguments(parser)
    add_explain(parser)


def add_busy_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what to do on a busy machine."""
    parser.add_argument(
        "--wait", type=seconds("--wait", least=0.0), metavar="SECONDS",
        help="wait so long for a machine that is fit and free",
    )  # fmt: skip
    parser.add_argument(
        "--allow-busy", action="store_true", help="measure on a machine that is not fit, too, with a caution"
    )


def busy_policy(args: argparse.Namespace) -> BusyPolicy:
    """Return what to do on a busy machine."""
    return BusyPolicy(args.wait, args.allow_busy)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Duel and print the verdict; returns its exit code. Raises UsageError, MachineBusyError, ArmUnavailableError."""
    require_writable(file_of(args.json))
    require_folder(args.baselines)
    require_arms(args.baseline, args.candidate)
    policy = replace(Policy(), margin=args.margin / 100)
    if args.explain:
        what = f"a duel of {args.baseline} (baseline) and {args.candidate} (candidate), side by side and in turns, on"
        return explain(out, what, args.workload, args.budget, pauses_s=30.0 * (args.sessions - 1))
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        workloads, sources = choose_workloads(args.workload, args.checkpoint, here)
        spec = DuelSpec(
            args.baseline, (args.candidate,), workloads, args.budget, args.sessions, aa=args.aa, sources=sources,
            outputs_may_differ=args.outputs_may_differ,
            policy=policy,
        )  # fmt: skip
        return report_on(duel(spec, here), here, args.json, out)


def report_on(result: DuelResult, here: Here, path: Path | None, out: TextIO) -> int:
    """Write the record, print the report and return the exit code."""
    arms = result.spec.baseline, result.spec.candidates[0]
    text = report.render(result.judgements, *arms, result.ttfts)
    with printed_anyway(text, out):
        written = path is not None and write_json(path, store.DUELS.encode(record_of(result, here.chip)), out)
    out.write("" if written else text)
    return report.exit_code(result.judgements, result.ttfts)
