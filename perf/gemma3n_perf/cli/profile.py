"""``gemma3n-perf profile``: where a token's time goes here, the streaming floor, and whether a fusion is justified."""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TextIO

from gemma3n_perf.cli.duel import add_machine_arguments, busy_policy
from gemma3n_perf.cli.options import STDOUT, add_json, explain, seconds
from gemma3n_perf.duel.run import Here, machine
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.profile import report, session
from gemma3n_perf.profile.types import PARTS
from gemma3n_perf.report import pages

HELP = "find where a token's time goes, and whether a fusion is justified"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--workload", action="append", default=[], metavar="ID", help="may be repeated (default: the chip's first)"
    )
    parser.add_argument("--checkpoint", metavar="CHECKPOINT", help="where the checkpoint is, if it is not a preset")
    parser.add_argument("--parts", metavar="LIST", help=f"of {','.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, lengths and knobs")
    parser.add_argument(
        "--budget",
        type=seconds("--budget"),
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
    add_json(parser, "the record there, leaving the baselines alone,")
    add_machine_arguments(parser)
    parser.add_argument("--page", action="store_true", help="measure nothing: write the pages of all stored profiles")
    parser.add_argument(
        "--check", action="store_true", help="with --page: write nothing, exit 5 if a page is not current"
    )
    parser.add_argument("--docs", type=Path, metavar="DIR", help="with --page (default: docs/ of the checkout)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Profile and print, or write pages. Raises UsageError, NotComparableError, and what loading raises."""
    if args.page:
        return page(in_checkout("baselines", args.baselines), in_checkout("docs", args.docs), args.check, out)
    if args.check:
        raise UsageError("--check goes with --page", expected="--page --check")
    parts = session.parse_parts(args.parts)
    if args.explain:
        return explain(out, f"a profile ({', '.join(parts)}) of", args.workload, args.budget)
    with machine(args.baselines, sys.stderr, busy_policy(args)) as here:
        return profile(args, parts, here, out)


def profile(args: argparse.Namespace, parts: tuple[str, ...], here: Here, out: TextIO) -> int:
    """Profile and print each workload as it is stored now. Returns the exit code."""
    with TemporaryDirectory() as folder:
        done = _measured(args, parts, here, Path(folder) / "profile.json" if args.json == STDOUT else args.json)
        if args.json == STDOUT:
            out.write(done.path.read_text(encoding="utf-8"))
            return done.exit_code
    for one in done.profiles:
        out.write(report.render(one) + "\n")
    out.write(f"{done.path}: {', '.join(done.parts or ['nothing'])} stored\n")
    return done.exit_code


def _measured(args: argparse.Namespace, parts: tuple[str, ...], here: Here, path: Path | None) -> session.Session:
    return session.measure(
        here, args.workload, args.checkpoint, parts, quick=args.quick, budget_s=args.budget, knobs=args.knob,
        against_python=args.against_python, against_fusion=args.against_fusion, capture=args.metal_capture,
        fresh=args.fresh, path=path,
    )  # fmt: skip


def page(baselines: Path, docs: Path, check: bool, out: TextIO) -> int:
    """Write the pages of all stored profiles, or check that they are current."""
    files = {docs / path: data for path, data in report.of_stored(baselines).items()}
    folder = docs / report.FOLDER
    present = [*folder.glob("*.md"), *folder.glob("*.svg")]
    return pages.write(files, present, folder, out, check=check)
