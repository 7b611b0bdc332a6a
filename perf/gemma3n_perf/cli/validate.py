"""``gemma3n-perf validate``: real duels of planted truth, recorded, and judged again by today's rules."""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.duel import add_budget, add_machine_arguments, add_margin, busy_policy
from gemma3n_perf.cli.options import add_alias, count, explain, seconds
from gemma3n_perf.duel import record as duel_store
from gemma3n_perf.duel import validation
from gemma3n_perf.duel import validation_record as store
from gemma3n_perf.duel.run import choose_workloads, machine
from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.stats.messages import percent
from gemma3n_perf.stats.policy import Policy

HELP = "try the judge on real duels of planted truth, and judge recorded ones again"
_PAGE_S = 600.0
EFFECTS = (0.0, 0.0, 2.0, -2.0, 1.0, -1.0, 10.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--rounds", type=count("--rounds"), default=1, metavar="N", help="rounds of duels (default: %(default)s)"
    )
    parser.add_argument(
        "--effects",
        type=float,
        nargs="+",
        default=list(EFFECTS),
        metavar="PERCENT",
        help="time planted in each duel of a round, 0 for A/A (default: 0 0 2 -2 1 -1 10)",
    )
    parser.add_argument(
        "--arm",
        default=store.HERE,
        metavar="ARM",
        help="what both arms are, as for duel: here, fusion:NAME, env:NAME=VALUE (default: %(default)s)",
    )
    parser.add_argument("--workload", action="append", default=[], metavar="ID", help="default: the chip's first")
    add_budget(parser, "measuring time of each duel")
    parser.add_argument(
        "--time", type=seconds("--time"), default=math.inf, metavar="SECONDS",
        help="start no launch after so long, once each duel of the round has its fewest, and no round",
    )  # fmt: skip
    add_margin(parser)
    add_machine_arguments(parser)
    parser.add_argument(
        "--rejudge", action="store_true", help="measure nothing; judge what is recorded by today's rules"
    )
    add_alias(parser, "--again", "--rejudge")
    parser.add_argument("--page", action="store_true", help="write docs/trust.md from all records, too (a checkout's)")
    parser.add_argument(
        "--add",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure nothing; add what duel --json wrote of an arm against itself, planted or --aa, on any machine",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Run rounds, keeping each in the record, then judge all of them again. Raises UsageError, MachineBusyError."""
    _check(args)
    baselines = in_checkout("baselines", args.baselines)
    if args.explain:
        what = f"{args.rounds} rounds of duels of {args.arm} with itself, each effect planted, on"
        return explain(out, what, args.workload, args.budget, duels=args.rounds * len(args.effects))
    if args.add:
        _add(args.add, baselines, out)
    elif not args.rejudge:
        _measure(args, out)
    records = [store.read(path) for path in sorted(baselines.glob(f"*/{store.NAME}"))]
    if not any(records):
        raise UsageError(f"no {store.NAME} below {baselines}", expected="recorded rounds", remedy="leave out --rejudge")
    for record in records:
        if record is not None:
            for tally in validation.judged_again(record):
                out.write(_tally_line(record.head.chip.chip_class, tally))
    if args.page:
        _write_page(baselines, out)
    return 0


def _write_page(baselines: Path, out: TextIO) -> None:
    """Have the study that writes the page do so: it lies beside this package, and is no part of it."""
    perf = in_checkout("perf", None)
    argv = ("env", f"PYTHONPATH={perf}", sys.executable, "-m", "studies.validation_page")
    done = run_command((*argv, "--baselines", str(baselines.resolve()), "--docs", str(perf.parent / "docs")), _PAGE_S)
    out.write(done.checked(NotMeasuredError, "the page could not be written", expected="a checkout with perf/studies"))


def _tally_line(chip_class: str, tally: validation.Tally) -> str:
    verdicts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(tally.verdicts.items()))
    changed = f"; {tally.changed} differ from what was said when they were measured" if tally.changed else ""
    what = f"{chip_class}, {tally.arm}, truth {percent(tally.truth)}"
    return f"{what}: {tally.duels} duels judged again: {verdicts}{changed}\n"


def _check(args: argparse.Namespace) -> None:
    if "plant:" in args.arm:
        raise UsageError(f"--arm {args.arm}", expected="an arm without a plant", remedy="plant with --effects")
    args.arm = validation.arm_of(args.arm)
    replace(Policy(), margin=args.margin / 100)
    if len(args.workload) > 1:
        raise UsageError(f"{len(args.workload)} workloads", expected="one: rates of two workloads do not mix")
    wrong = [effect for effect in args.effects if not -50 <= effect <= 900]
    if wrong:
        raise UsageError(f"--effects {wrong[0]:g}", expected="percentages from -50 to 900, for instance 0 2 -2")


def _measure(args: argparse.Namespace, out: TextIO) -> None:
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        require_known(here.chip)
        workloads, _ = choose_workloads(args.workload, None, here)
        path = store.power_path(here.baselines, here.chip.chip_class)
        head = validation.head(workloads[0], here)
        first = _next_round(store.require_same(path, head))
        planted_duels = [validation.PlantedDuel(effect / 100) for effect in args.effects]
        policy = replace(Policy(), margin=args.margin / 100)
        clock, number = here.tools.clock, first - 1
        end_s = clock() + args.time
        while number < first - 1 + args.rounds and clock() < end_s:
            number += 1
            found = validation.round_of_duels(
                planted_duels,
                workloads[0],
                args.budget,
                here,
                number=number,
                policy=policy,
                arm=args.arm,
                late=lambda: clock() >= end_s,
            )
            store.append(path, head, found)
            _tell(found, out)
        out.write(f"{path}: {number} rounds\n")


def _add(files: list[Path], baselines: Path, out: TextIO) -> None:
    for file in files:
        record = duel_store.DUELS.read(file)
        path = store.power_path(baselines, record.chip.chip_class)
        known = store.read(path)
        found = validation.adopted(record, _next_round(known))
        if known and any(one.launches == found.launches for one in known.duels):
            raise UsageError(f"{path} already holds the duel of {file}", expected="each duel once")
        store.append(path, validation.head_of(record), [found])
        _tell([found], out)


def _next_round(known: store.PowerRecord | None) -> int:
    return 1 + max((duel.round for duel in known.duels), default=0) if known else 1


def _tell(found: Sequence[store.PowerDuel], out: TextIO) -> None:
    for duel in found:
        effect = "-" if duel.effect is None else percent(duel.effect)
        out.write(
            f"round {duel.round}, planted {100 * duel.planted:+.4g} % of time: {duel.verdict} {effect}, "
            f"{len(duel.launches)} launches, {duel.measured_s:.0f} s\n"
            + "".join(f"  caution: {caution}\n" for caution in duel.cautions)
        )
    out.flush()
