"""``gemma3n-perf power``: real duels of planted truth, and what other tools' rules say of the same launches."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gemma3n_perf import dueling, powering
from gemma3n_perf.commands.duel import add_budget, add_margin, chosen
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.store import duels as duel_store
from gemma3n_perf.store import power as store
from gemma3n_perf.store.files import write_over
from gemma3n_perf.verdict.policy import Policy
from gemma3n_perf.verdict.words import percent

if TYPE_CHECKING:
    from gemma3n_perf.report import trust_page

HELP = "try the judge, and other tools' rules, on real duels of planted truth"
EFFECTS = (0.0, 0.0, 2.0, -2.0, 1.0, -1.0, 10.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="rounds of duels (default: %(default)s)")
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
    add_margin(parser)
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    parser.add_argument("--docs", type=Path, metavar="DIR", help="where trust.md goes (default: docs/ of the checkout)")
    parser.add_argument("--page", action="store_true", help="measure nothing; write docs/trust.md from the records")
    parser.add_argument(
        "--add",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure nothing; add what duel --json wrote of an arm against itself, planted or --aa, on any machine",
    )
    parser.set_defaults(checkpoint=None)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Run rounds, keeping each in the record, then write the page. Raises UsageError, MachineBusyError."""
    _check(args)
    baselines, docs = in_checkout("baselines", args.baselines), in_checkout("docs", args.docs)
    if args.add:
        _add(args.add, baselines, out)
    elif not args.page:
        _measure(args, out)
    # matplotlib takes most of a second to import.
    from gemma3n_perf.report import trust_page

    records = {path.parent.name: store.read(path) for path in sorted(baselines.glob(f"*/{store.NAME}"))}
    kept = {name: record for name, record in records.items() if record is not None}
    if not kept:
        raise UsageError(f"no {store.NAME} below {baselines}", expected="a campaign", remedy="gemma3n-perf power")
    files = trust_page.build([one for record in kept.values() for one in _campaigns(record)])
    for path, data in files.items():
        write_over(docs / path, data)
    out.write(f"{docs / trust_page.PAGE}: written from {sum(len(one.duels) for one in kept.values())} duels\n")
    return 0


def _campaigns(record: store.PowerRecord) -> "list[trust_page.Campaign]":
    """One for each arm: what two arms scatter by is not one spread."""
    from gemma3n_perf.report import trust_page

    found = []
    for arm in dict.fromkeys(duel.arm for duel in record.duels):
        duels = tuple(duel for duel in record.duels if duel.arm == arm)
        found.append(trust_page.Campaign(record.head, duels, tuple(powering.trials(duels))))
    return found


def _check(args: argparse.Namespace) -> None:
    if "plant:" in args.arm:
        raise UsageError(f"--arm {args.arm}", expected="an arm without a plant", remedy="plant with --effects")
    args.arm = powering.arm_of(args.arm)
    if args.rounds < 1:
        raise UsageError(f"--rounds {args.rounds}", expected="1 or more")
    if len(args.workload) > 1:
        raise UsageError(f"{len(args.workload)} workloads", expected="one: rates of two workloads do not mix")
    wrong = [effect for effect in args.effects if not -50 <= effect <= 900]
    if wrong:
        raise UsageError(f"--effects {wrong[0]:g}", expected="percentages from -50 to 900, for instance 0 2 -2")


def _measure(args: argparse.Namespace, out: TextIO) -> None:
    with dueling.machine(args.baselines, sys.stderr) as here:
        require_known(here.chip)
        workloads, _ = chosen(args, here)
        path = store.power_path(here.baselines, here.chip.chip_class)
        head = powering.head(workloads[0], here)
        first = _next_round(store.require_same(path, head))
        lanes = [powering.Lane(effect / 100) for effect in args.effects]
        policy = replace(Policy(), margin=args.margin / 100)
        for number in range(first, first + args.rounds):
            found = powering.round_of_duels(
                lanes, workloads[0], args.budget, here, number=number, policy=policy, arm=args.arm
            )
            store.append(path, head, found)
            _tell(found, out)
        out.write(f"{path}: {first + args.rounds - 1} rounds; commit it with the page\n")


def _add(files: list[Path], baselines: Path, out: TextIO) -> None:
    for file in files:
        record = duel_store.read(file)
        path = store.power_path(baselines, record.chip.chip_class)
        known = store.read(path)
        found = powering.adopted(record, _next_round(known))
        if known and any(one.launches == found.launches for one in known.duels):
            raise UsageError(f"{path} already holds the duel of {file}", expected="each duel once")
        store.append(path, powering.head_of(record), [found])
        _tell([found], out)


def _next_round(known: store.PowerRecord | None) -> int:
    return 1 + max((duel.round for duel in known.duels), default=0) if known else 1


def _tell(found: Sequence[store.PowerDuel], out: TextIO) -> None:
    for duel in found:
        told = "-" if duel.effect is None else percent(duel.effect)
        out.write(
            f"round {duel.round}, planted {100 * duel.planted:+.4g} % of time: {duel.verdict} {told}, "
            f"{len(duel.launches)} launches, {duel.measured_s:.0f} s\n"
        )
    out.flush()
