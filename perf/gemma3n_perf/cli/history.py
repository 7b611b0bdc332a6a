"""``gemma3n-perf history``: what was stored of each commit, as asv results; releases; steps and the duels over them."""

import argparse
import sys
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.history_measure import confirm, follow
from gemma3n_perf.cli.site import add_places, places
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect, require_known
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.building import all_series, bring_up, import_upstream
from gemma3n_perf.history.detect import LEAST_POINTS
from gemma3n_perf.history.upstream import LINES
from gemma3n_perf.report import rows as show

HELP = "asv results from what was stored; releases of mlx and mlx-vlm; steps, and duels over them"


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


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Carry out one action. Raises UsageError, NotMeasuredError, DiskFullError."""
    match args.action:
        case "import":
            return _import(args, out)
        case "steps":
            return _steps(args, out)
        case "confirm":
            return confirm(args, out, sys.stderr)
        case "upstream":
            return follow(args, out, sys.stderr)
        case _:
            return _machine(args, out)


def _import(args: argparse.Namespace, out: TextIO) -> int:
    where = places(args)
    imported, staged, _ = bring_up(where, run_command)
    releases = import_upstream(where, run_command)
    for one in (*imported.refused, *staged.refused):
        out.write(f"left out: {one.path.name}: {one.reason}\n")
    for note in (*imported.notes, *staged.notes):
        out.write(f"{note}\n")
    out.write(
        f"{imported.sessions} sessions: {imported.created} results made, {imported.changed} added to, "
        f"{imported.unchanged} as they were; {imported.merged} commits of several sessions, their runs pooled\n"
    )
    out.write(f"{releases} results of releases\n" if releases else "")
    return 0


def _steps(args: argparse.Namespace, out: TextIO) -> int:
    where = places(args)
    _, staged, known = bring_up(where, run_command)
    listed, faults = all_series(where, staged, known)
    for fault in faults:
        out.write(f"left out: {fault}\n")
    for one in listed:
        for found in one.found:
            change = show.percent(found.step.effect, 1, sign=True)
            out.write(f"{one.chip_class} {one.workload}: {change} at {found.after[:12]}, {found.standing}\n")
    count = sum(len(one.found) for one in listed)
    out.write(f"{len(listed)} series, {count} steps\n")
    if short := sum(len(one.points) < LEAST_POINTS for one in listed):
        out.write(f"{short} of them too short to show one: fewer than {LEAST_POINTS} points\n")
    return 0


def _machine(args: argparse.Namespace, out: TextIO) -> int:
    from asv.machine import MachineCollection  # asv takes a moment to import

    chip = detect()
    require_known(chip)
    axes = asv_files.machine(chip)
    path = args.file or Path(MachineCollection.get_machine_file_path())
    try:
        MachineCollection.save(chip.chip_class, axes, _path=str(path))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be written: {error}", expected="asv's own file of machines") from error
    out.write(f"{path}: asv knows {chip.chip_class}\n")
    out.write(f"next: asv run --machine {chip.chip_class} --set-commit-hash $(git rev-parse HEAD)\n")
    return 0
