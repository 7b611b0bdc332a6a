"""``gemma3n-perf bisect GOOD BAD``: find the first commit or release that changed the speed, by duels."""

import argparse
import sys
from typing import TextIO

from gemma3n_perf.cli.duel import add_budget, add_outputs_argument, add_workload_arguments, busy_policy
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.bisect import Found, bisect
from gemma3n_perf.duel.environments import find_uv
from gemma3n_perf.duel.report import interval
from gemma3n_perf.duel.run import DuelSpec, choose_workloads, duel, machine
from gemma3n_perf.duel.steps import Steps
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, not_measured
from gemma3n_perf.store.files import require_folder

HELP = "find the first commit or release that changed the speed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("good", metavar="GOOD", help="the older arm, for instance ref:v1.0 or mlx==0.32.1")
    parser.add_argument("bad", metavar="BAD", help="the newer arm, which differs from it in that part alone")
    add_workload_arguments(parser)
    add_budget(parser, "measuring time of each duel; once more, doubled, where that tells nothing")
    add_outputs_argument(parser)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Search and print the first changed step with its effect. Raises UsageError, NotMeasuredError."""
    for text in (args.good, args.bad):
        parse(text)
    require_folder(args.baselines)
    if len(args.workload) > 1:
        raise UsageError("bisect takes one workload", expected="the workload that changed most")
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        workloads, sources = choose_workloads(args.workload, args.checkpoint, here)
        progress = Progress(sys.stderr)

        def compare(baseline: str, candidate: str, budget_s: float, policy: Policy) -> Judgement:
            spec = DuelSpec(
                baseline, (candidate,), workloads, budget_s, policy=policy, sources=sources,
                outputs_may_differ=args.outputs_may_differ,
            )  # fmt: skip
            try:
                found = duel(spec, here).judgements[workloads[0]]
            except ArmUnavailableError as error:
                found = not_measured(error.found)
            progress.clear()
            out.write(f"{candidate} against {baseline}: {found.verdict} {interval(found)}, {found.measured_s:.0f} s\n")
            out.flush()
            return found

        worktrees = here.builder.worktrees
        steps = Steps(worktrees, worktrees.cache, run_command, find_uv()).between(args.good, args.bad)
        out.write(f"{len(steps) - 1} steps from {args.good} to {args.bad}\n")
        out.write(as_text(bisect(steps, compare, budget_s=args.budget, note=here.tools.note)))
    return 0


def as_text(found: Found) -> str:
    """Return the answer: the first changed step, or those among which it is, and the effect with its interval."""
    which = found.suspects[0] if len(found.suspects) == 1 else f"one of {', '.join(found.suspects)}"
    if not found.confirmed and found.judgement.verdict.decided:
        lines = [
            "no single step was shown to have the change of the ends: it seems to have come in several",
            f"the first step that has a third of it or more, counted from the good end, is {which}",
        ]
    elif not found.confirmed:
        lines = [f"the first changed step is probably {which}: the duel that would confirm it told nothing"]
    elif len(found.suspects) == 1:
        lines = [f"the first changed step is {found.suspects[0]}"]
    else:
        lines = [f"the first changed step is one of {len(found.suspects)}, for the others could not be told:"]
        lines += [f"  {one}" for one in found.suspects]
    judged = found.judgement
    lines.append(f"{found.suspects[-1]} against {found.last_good}: {interval(judged)}, {judged.verdict}")
    return "\n".join(lines) + "\n"
