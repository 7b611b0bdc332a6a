"""``gemma3n-perf history``: what was stored of each commit, as asv results; releases; steps and the duels over them."""

import argparse
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.site import add_places, places
from gemma3n_perf.duel.report import interval
from gemma3n_perf.duel.run import Here
from gemma3n_perf.duel.run import machine as this_machine
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect, require_known
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import building
from gemma3n_perf.history.asv_adapter import save_machine
from gemma3n_perf.history.duels import Request, confirm, follow, released, spread
from gemma3n_perf.history.series import LEAST_POINTS
from gemma3n_perf.history.upstream import LINES
from gemma3n_perf.report import units

HELP = "asv results from what was stored; releases of mlx and mlx-vlm; steps, and duels over them"
Opened = Callable[[Path | None, TextIO], AbstractContextManager[Here]]
"""Holds a machine for measuring: given the folder of baselines, and where to show progress."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    importing = actions.add_parser("import", help="turn stored sessions into asv results; may be repeated")
    listing = actions.add_parser("steps", help="list the steps in every series, and where each stands")
    confirming = actions.add_parser("confirm", help="put steps of this chip class to a duel of the two commits")
    confirming.add_argument("commits", nargs="*", metavar="COMMIT", help="BEFORE and AFTER; default: all that are open")
    following = actions.add_parser("upstream", help="duel releases of mlx or mlx-vlm against what is installed")
    following.add_argument("--line", choices=LINES, required=True, help="whose releases")
    following.add_argument("--from", dest="first", metavar="VERSION", help="all releases from this one to today's")
    following.add_argument("--versions", metavar="A,B,...", help="these releases, or full commits of mlx-vlm")
    following.add_argument("--points", type=int, metavar="N", help="at most N of them, spread evenly, ends included")
    following.add_argument("--clone", type=Path, metavar="DIR", help="a clone of mlx-vlm that holds the commits")
    following.add_argument("--again", action="store_true", help="measure those anew that have a record")
    following.add_argument("--time", type=float, metavar="SECONDS", help="start no point after so long")
    for action, budget in ((confirming, 60.0), (following, 12.0)):
        action.add_argument("--workload", metavar="ID", help="default: the series' own, or the chip's first")
        action.add_argument(
            "--budget", type=float, default=budget, metavar="SECONDS",
            help="measuring time of one duel (default: %(default)g)",
        )  # fmt: skip
    for action in (importing, listing, confirming, following):
        add_places(action)
    machine = actions.add_parser("machine", help="tell asv that this machine is its chip class, once, before asv run")
    machine.add_argument("--file", type=Path, metavar="FILE", help="default: asv's own, .asv-machine.json at home")


def run(args: argparse.Namespace, out: TextIO, opened: Opened = this_machine) -> int:
    """Carry out one action; ``opened`` holds the machine. Raises UsageError, NotMeasuredError, DiskFullError."""
    match args.action:
        case "import":
            return _import(args, out)
        case "steps":
            return _steps(args, out)
        case "confirm":
            return _confirm(args, out, opened)
        case "upstream":
            return _follow(args, out, opened)
        case _:
            return _machine(args, out)


def _import(args: argparse.Namespace, out: TextIO) -> int:
    collected, releases = building.import_all(places(args), run_command)
    for text in (*(f"left out: {one}" for one in collected.left_out), *collected.notes):
        out.write(f"{text}\n")
    counts = collected.counts
    out.write(
        f"{counts['sessions']} sessions: {counts['created']} results made, {counts['changed']} added to, "
        f"{counts['unchanged']} as they were; {counts['pooled']} commits of several sessions, their runs pooled\n"
    )
    out.write(f"{releases} results of releases\n" if releases else "")
    return 0


def _steps(args: argparse.Namespace, out: TextIO) -> int:
    where = places(args)
    listed, faults = building.all_series(where, *building.collect_all(where, run_command))
    for fault in faults:
        out.write(f"left out: {fault}\n")
    for one in listed:
        for step in one.steps:
            change = units.percent(step.change.effect, 1, sign=True)
            out.write(f"{one.chip_class} {one.workload}: {change} at {step.after[:12]}, {step.standing}\n")
    out.write(f"{len(listed)} series, {sum(len(one.steps) for one in listed)} steps\n")
    if short := sum(len(one.points) < LEAST_POINTS for one in listed):
        out.write(f"{short} of them too short to show one: fewer than {LEAST_POINTS} points\n")
    return 0


def _confirm(args: argparse.Namespace, out: TextIO, opened: Opened) -> int:
    """Duel the commits around steps and say what was found; returns the worst exit code."""
    if len(args.commits) not in (0, 2):
        raise UsageError(f"{len(args.commits)} commits", expected="BEFORE and AFTER, or none for all open steps")
    where, worst = places(args), 0
    with opened(where.baselines, sys.stderr) as here:
        pairs = building.pairs_to_confirm(where, here.chip.chip_class, args.commits, args.workload, run_command)
        if not pairs:
            out.write(f"no step of {here.chip.chip_class} is open\n")
        for (before, after), judgements, path in confirm(pairs, here, args.budget):
            for workload, judged in judgements.items():
                out.write(f"{workload}, {before[:12]} to {after[:12]}: {judged.verdict} {interval(judged)}\n")
                worst = max(worst, judged.verdict.exit_code)
            out.write(f"  kept in {path}\n")
    return worst


def _follow(args: argparse.Namespace, out: TextIO, opened: Opened) -> int:
    if bool(args.versions) == bool(args.first):
        raise UsageError("which releases?", expected="--from VERSION or --versions A,B,...")
    request = Request(args.line, args.budget, args.workload, args.clone, args.again, args.time)
    with opened(places(args).baselines, sys.stderr) as here:
        named = args.versions and args.versions.replace(" ", "").strip(",").split(",")
        versions = named or released(args.line, args.first, here)
        newest_first = (versions if args.points is None else spread(versions, args.points))[::-1]
        for text in follow(request, newest_first, here):
            out.write(f"{text}\n")
            out.flush()
    return 0


def _machine(args: argparse.Namespace, out: TextIO) -> int:
    chip = detect()
    require_known(chip)
    path = save_machine(chip, args.file)
    out.write(f"{path}: asv knows {chip.chip_class}\n")
    out.write(f"next: asv run --machine {chip.chip_class} --set-commit-hash $(git rev-parse HEAD)\n")
    return 0
