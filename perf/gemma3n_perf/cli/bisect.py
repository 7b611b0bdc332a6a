"""``gemma3n-perf bisect GOOD BAD``: every commit or release between them that changed the speed, by duels."""

import argparse
import re
import sys
from typing import TextIO

from gemma3n_perf.cli.duel import add_budget, add_outputs_argument, add_workload_arguments, busy_policy
from gemma3n_perf.cli.options import explain
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.bisect import Found, bisect
from gemma3n_perf.duel.environments import find_uv
from gemma3n_perf.duel.report import interval
from gemma3n_perf.duel.run import DuelSpec, choose_workloads, duel, machine
from gemma3n_perf.duel.steps import Steps
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import suite_checkout
from gemma3n_perf.report import units
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, Verdict, not_measured
from gemma3n_perf.store.files import SHORT_COMMIT, require_folder
from gemma3n_perf.workload.presets import checkpoints_root

_COMMIT = re.compile(r"[0-9a-f]{40}")
HELP = "find every commit or release that changed the speed, with its share"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("good", metavar="GOOD", help="the older arm, for instance ref:v1.0 or mlx==0.32.1")
    parser.add_argument("bad", metavar="BAD", help="the newer arm, which differs from it in that part alone")
    add_workload_arguments(parser)
    add_budget(parser, "measuring time of each duel; once more, doubled, where that tells nothing")
    add_outputs_argument(parser)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Search and print every changed step with its effect; returns the code of the ends' verdict. Raises UsageError."""
    for text in (args.good, args.bad):
        parse(text)
    require_folder(args.baselines)
    if len(args.workload) > 1:
        raise UsageError("bisect takes one workload", expected="the workload that changed most")
    # What is misspelt is said before the machine is held.
    cache, progress = checkpoints_root().parent, Progress(sys.stderr)
    progress.note(f"what lies between {args.good} and {args.bad}?")
    try:
        steps = Steps(Worktrees(suite_checkout(), cache, run_command), cache, run_command, find_uv()).between(
            args.good, args.bad
        )
    finally:
        progress.clear()
    if args.explain:
        what = f"{len(steps) - 1} steps from {args.good} to {args.bad}: a duel of the ends, then of halves, on"
        return explain(out, what, args.workload, args.budget, duels=2 * len(steps).bit_length() + 1)
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        workloads, sources = choose_workloads(args.workload, args.checkpoint, here)

        def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
            spec = DuelSpec(
                baseline,
                (candidate,),
                workloads,
                budget_s,
                settle=settle,
                policy=policy,
                sources=sources,
                outputs_may_differ=args.outputs_may_differ,
            )
            try:
                found = duel(spec, here).judgements[workloads[0]]
            except (ArmUnavailableError, UsageError) as error:  # a release may have no wheel for this machine
                found = not_measured(error.found)
            progress.clear()
            said = interval(found) if found.effect is not None else found.reason
            line = f"{short(candidate)} against {short(baseline)}: {found.verdict} {said}, {found.measured_s:.0f} s\n"
            out.write(line)
            if found.effect is not None and not found.verdict.decided:
                out.write(f"  {found.reason}\n")
            out.flush()
            return found

        out.write(f"{len(steps) - 1} steps from {args.good} to {args.bad}\n")
        found = bisect(steps, compare, budget_s=args.budget, note=here.tools.note)
    out.write(as_text(found, args.good, args.bad))
    return found.ends.verdict.exit_code


def short(arm: str) -> str:
    """Return an arm with its commits shortened."""
    return _COMMIT.sub(lambda match: match[0][:SHORT_COMMIT], arm)


def as_text(found: Found, good: str, bad: str) -> str:
    """Return the answer: each step that changed the speed with its effect and share, and what is left of the whole."""
    ends = found.ends
    if ends.verdict is Verdict.NO_CHANGE:
        return f"{bad} is as fast as {good}: there is nothing to search for ({ends.reason})\n"
    if not ends.verdict.is_claim:
        remedy = "  next: raise --budget, or choose ends further apart\n"
        return f"whether {bad} differs from {good} cannot be told: {ends.verdict}: {ends.reason}\n{remedy}"
    lines = []
    for step in found.steps:
        names, share = [short(one) for one in step.suspects], units.percent(step.share)
        which = names[0] if len(names) == 1 else f"one of {len(names)}, {', '.join(names)}:"
        sure, effect = step.judgement.verdict.is_claim, interval(step.judgement)
        changed = "changed it" if sure else "probably changed it"
        lines.append(f"{which} {changed}: {effect} against {short(step.before)}, {share} of the whole")
        if not sure:
            lines.append(f"  twice the whole interval says so, and the verdict is withheld: {step.judgement.reason}")
    if not lines:
        lines.append("no single step was shown to change it: the change seems to have come in several small ones")
    lines += [
        f"{short(newest)} against {short(before)} could not be told: {one.reason}"
        for before, newest, one in found.unclear
    ]
    least, unexplained = units.percent(found.least, 1), units.percent(found.unexplained, 1, sign=True)
    lines.append(
        f"the whole: {bad} against {good}: {interval(ends)}, {ends.verdict}; not in these steps: {unexplained} "
        f"(none of less than {least} is looked for)"
    )
    return "\n".join(lines) + "\n"
