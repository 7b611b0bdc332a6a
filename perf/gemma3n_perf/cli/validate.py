"""``gemma3n-perf validate``: real duels of planted truth, recorded, and judged again by today's rules."""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.duel import add_budget, add_machine_arguments, add_margin, busy_policy
from gemma3n_perf.cli.options import add_alias, count, explain, seconds
from gemma3n_perf.duel import record as duel_store
from gemma3n_perf.duel import validation
from gemma3n_perf.duel import validation_record as store
from gemma3n_perf.duel import validation_round as rounds
from gemma3n_perf.duel.run import Here, choose_workloads, machine
from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.stats.messages import percent
from gemma3n_perf.stats.policy import Policy

HELP = "try the judge on real duels of planted truth, and judge recorded ones again"
_PAGE_S = 600.0
_KEEP_S = 60.0
"""How often a round under way is written: that takes seconds where a campaign is long."""

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
    parser.add_argument(
        "--resume", action="store_true", help="go on with the open duels of the newest round, as they were begun"
    )
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
    begun = {"--rounds": 1, "--effects": list(EFFECTS), "--arm": store.HERE, "--budget": Policy().budget_s}
    given = [option for option, usual in begun.items() if getattr(args, option[2:]) != usual]
    if args.resume and (given or args.workload or args.add or args.rejudge):
        raise UsageError(
            f"--resume with {given[0] if given else '--workload, --add or --rejudge'}",
            expected="--resume, with --time at most: what is measured is what the round was begun with",
        )
    replace(Policy(), margin=args.margin / 100)
    if len(args.workload) > 1:
        raise UsageError(f"{len(args.workload)} workloads", expected="one: rates of two workloads do not mix")
    wrong = [effect for effect in args.effects if not -50 <= effect <= 900]
    if wrong:
        raise UsageError(f"--effects {wrong[0]:g}", expected="percentages from -50 to 900, for instance 0 2 -2")


def _measure(args: argparse.Namespace, out: TextIO) -> None:
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        require_known(here.chip)
        policy = replace(Policy(), margin=args.margin / 100)
        path = store.power_path(here.baselines, here.chip.chip_class)
        clock = here.tools.clock
        end_s, number = clock() + args.time, 0
        known = store.read(path)
        named, going = (
            _unfinished(path, known, policy, here) if args.resume else (args.workload, _begun(args, known, here))
        )
        (workload, *_), _ = choose_workloads(named, None, here)
        head = validation.head(workload, here)
        store.require_same(path, head)
        for duels in going:
            if clock() >= end_s:
                break
            number = duels[0].round
            with _kept(path, head, here, out) as launched:
                found = rounds.go_on(
                    duels, workload, here, policy=policy, late=lambda: clock() >= end_s, launched=launched
                )
                launched(found)
            _tell(found, out)
        out.write(f"{path}: {number} rounds\n")


def _begun(args: argparse.Namespace, known: store.PowerRecord | None, here: Here) -> Iterator[list[store.PowerDuel]]:
    planted_duels = [rounds.PlantedDuel(effect / 100) for effect in args.effects]
    for number in range(_next_round(known), _next_round(known) + args.rounds):
        yield rounds.planned(planted_duels, args.budget, here, number=number, arm=args.arm)


def _unfinished(
    path: Path, known: store.PowerRecord | None, policy: Policy, here: Here
) -> tuple[list[str], Iterable[list[store.PowerDuel]]]:
    """Return the workload of a campaign, by itself, and its newest round, which has open duels. Raises UsageError."""
    newest = store.newest_round(known)
    if known is None or not any(rounds.is_open(duel, policy) for duel in newest):
        raise UsageError(
            f"no duel of round {newest[0].round} in {path} is open" if newest else f"{path} holds no round",
            expected="a round that was cut short",
            remedy="leave out --resume to begin another one",
        )
    here.tools.note(f"round {newest[0].round} goes on; so far it had {max(map(_launches, newest))} launches")
    return [known.head.workload], [newest]


@contextmanager
def _kept(
    path: Path, head: store.PowerHead, here: Here, out: TextIO
) -> Iterator[Callable[[list[store.PowerDuel]], None]]:
    """Yield what takes a round as far as it is, and writes it once a minute, at its end, and where it is cut short."""
    clock = here.tools.clock
    latest, written, written_s = list[store.PowerDuel](), list[store.PowerDuel](), clock()

    def launched(duels: list[store.PowerDuel]) -> None:
        nonlocal latest
        latest = duels
        if clock() - written_s >= _KEEP_S:
            write()

    def write() -> None:
        nonlocal written, written_s
        if latest != written:
            store.append(path, head, latest)
            written, written_s = latest, clock()

    try:
        yield launched
    except BaseException:
        write()
        if latest:
            out.write(
                f"round {latest[0].round} is kept, {max(map(_launches, latest))} launches; "
                "go on with: gemma3n-perf validate --resume\n"
            )
            out.flush()
        raise
    write()


def _launches(duel: store.PowerDuel) -> int:
    return len(duel.launches)


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
