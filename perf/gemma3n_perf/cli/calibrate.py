"""``gemma3n-perf calibrate``: duel this tree against itself, and store what error shows as the class's noise floor."""

import argparse
import datetime as dt
import sys
from collections import Counter
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.duel import add_budget, add_workload_arguments, busy_policy
from gemma3n_perf.cli.options import count, explain
from gemma3n_perf.duel import validation, validation_record
from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.report import interval
from gemma3n_perf.duel.run import DuelResult, DuelSpec, choose_workloads, duel, machine
from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.stats.estimates import relative_change
from gemma3n_perf.stats.policy import MARGIN
from gemma3n_perf.stats.spread import noise_limit
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import noise

_LEAST_DUELS = 5
"""A/A duels of each workload below which their agreement may be chance."""

HELP = "measure the noise floor of this chip class with A/A duels"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--duels", type=count("--duels"), default=8, metavar="N", help="A/A duels of each workload (default: 8)"
    )
    add_workload_arguments(parser)
    add_budget(parser, "measuring time of each duel, all of it used", 30.0)
    parser.add_argument(
        "--recorded",
        metavar="CLASS",
        help="measure nothing; use the A/A duels of this chip class's campaign (gemma3n-perf validate), on any machine",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Measure the duels or read them, and store the floor. Raises UsageError, NotMeasuredError where a duel fails."""
    if args.duels < 2:
        raise UsageError(f"--duels {args.duels}", expected="2 or more: one duel shows no spread between sessions")
    if args.explain:
        what = "A/A duels of this tree with itself, and the noise floor they show, on"
        return explain(out, what, args.workload, args.budget, duels=args.duels)
    if args.recorded:
        baselines = in_checkout("baselines", args.baselines)
        record = _recorded(baselines, args.recorded)
    else:
        baselines, record = _measured(args, out)
    path = noise.write(baselines, record)
    floor = record.floor
    out.write(
        f"noise floor {100 * relative_change(floor.effect):.2f} %, spread between launches "
        f"{100 * relative_change(floor.launch_sd):.2f} %, largest of {floor.duels} A/A effects "
        f"{100 * relative_change(floor.largest):.2f} %\n"
    )
    limit = relative_change(noise_limit([one.log_ratios for one in record.duels]))
    out.write(f"sessions may still be off by up to {100 * limit:.2f} % (95 % confidence)\n")
    # A few that agree by chance exclude anything.
    few = min(Counter(one.workload for one in record.duels).values()) < _LEAST_DUELS
    if few or limit > MARGIN:
        said = "may agree by chance" if few else f"exclude no noise floor of the margin, {100 * MARGIN:.0f} %"
        out.write(f"caution: {floor.duels} A/A duels {said}\n")
        out.write(f"  next: gemma3n-perf calibrate --duels {max(8, 2 * floor.duels)}\n")
    out.writelines(f"caution: {one}\n" for one in record.cautions)
    out.write(f"{path}: commit it with the baselines of {record.chip.chip_class}; gemma3n-perf fusion page names it\n")
    return 0


def _measured(args: argparse.Namespace, out: TextIO) -> tuple[Path, noise.NoiseRecord]:
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        require_known(here.chip)
        workloads, sources = choose_workloads(args.workload, args.checkpoint, here)
        found: list[noise.AaDuel] = []
        for number in range(1, args.duels + 1):
            spec = DuelSpec("here", ("here",), workloads, args.budget, aa=True, settle=False, sources=sources)
            found += _one(duel(spec, here), number, args.duels, out)
        date = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        cautions = tuple(one.found for one in here.cautions)
        return here.baselines, noise.calibration(found, date, here.chip, here.stack, cautions)


def _recorded(baselines: Path, chip_class: str) -> noise.NoiseRecord:
    path = validation_record.power_path(baselines, chip_class)
    campaign = validation_record.read(path)
    if campaign is None:
        raise UsageError(
            f"there is no {path}",
            expected="the campaign of a chip class",
            remedy="gemma3n-perf validate, on a machine of the class",
        )
    return validation.calibration(campaign)


def _one(result: DuelResult, number: int, total: int, out: TextIO) -> list[noise.AaDuel]:
    found = []
    for name, state in result.states.items():
        judged = result.judgements[name]
        if judged.verdict in (Verdict.NOT_MEASURED, Verdict.INVALID):
            raise NotMeasuredError(
                f"duel {number} of {total}, {name}: {judged.reason}",
                expected="A/A duels without a failure; nothing was stored",
                remedy=next((caution.remedy for caution in judged.cautions), "see what it says, then calibrate again"),
            ) from state.failure
        measured = estimates(state.launches)
        found.append(noise.aa_duel(name, measured))
        out.write(f"duel {number} of {total}, {name}: {interval(judged)}, {len(measured)} launches\n")
        out.flush()
    return found
