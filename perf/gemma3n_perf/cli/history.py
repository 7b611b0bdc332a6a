"""``gemma3n-perf history``: what was stored of each commit, as asv results; releases; steps and the duels over them."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.duel import add_busy_arguments, busy_policy
from gemma3n_perf.cli.options import add_explain, count, days, seconds
from gemma3n_perf.cli.site import add_places, places
from gemma3n_perf.duel.arms import is_version
from gemma3n_perf.duel.lookup import require_arms, unheld
from gemma3n_perf.duel.report import deciding, interval
from gemma3n_perf.duel.run import Here
from gemma3n_perf.duel.run import machine as this_machine
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect, require_known
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import building
from gemma3n_perf.history.asv_adapter import save_machine
from gemma3n_perf.history.confirming import confirm
from gemma3n_perf.history.duels import (
    Request,
    anchor_of,
    expected_s,
    follow,
    pending,
    programs,
    released,
    require_versions,
    spread,
)
from gemma3n_perf.history.findings import build as build_findings
from gemma3n_perf.history.point_record import OWN, RELEASES
from gemma3n_perf.history.series import LEAST_POINTS
from gemma3n_perf.report import pages, units
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.files import SHORT_COMMIT, require_folder

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
    following.add_argument("--line", choices=RELEASES, required=True, help="whose releases")
    following.add_argument("--from", dest="first", metavar="FIRST", help="all releases from this one to today's")
    following.add_argument("--versions", metavar="A,B,...", help="these releases, or full commits of mlx-vlm")
    following.add_argument("--clone", type=Path, metavar="DIR", help="a clone of mlx-vlm that holds the commits")
    own = actions.add_parser("commits", help="duel commits of this repository that changed decode against an anchor")
    own.add_argument("--anchor", metavar="COMMIT", help="default: that of the records, or the last release")
    own.add_argument("--from", dest="first", metavar="FIRST", help="only those after this one")
    for action in (following, own):
        action.add_argument(
            "--points", type=count("--points"), metavar="N", help="at most N of them, spread evenly, ends included"
        )
        action.add_argument(
            "--again",
            type=days("--again"),
            nargs="?",
            const=0.0,
            metavar="DAYS",
            help="measure those anew whose record is so many days old (without DAYS: all)",
        )
        action.add_argument(
            "--time", type=seconds("--time", least=0.0), metavar="SECONDS", help="start no point after so long"
        )
        add_explain(action)
    for action, budget in ((confirming, 60.0), (following, 20.0), (own, 20.0)):
        action.add_argument("--workload", metavar="ID", help="default: the series' own, or the chip's first")
        action.add_argument(
            "--budget", type=seconds("--budget"), default=budget, metavar="SECONDS",
            help="measuring time of one duel (default: %(default)g)",
        )  # fmt: skip
        add_busy_arguments(action)
    for action in (importing, listing, confirming, following, own):
        add_places(action)
    findings = actions.add_parser("findings", help="write the page of regressions found upstream, from the records")
    findings.add_argument("--check", action="store_true", help="write nothing; exit 5 if the page is not current")
    findings.add_argument("--docs", type=Path, metavar="DIR", help="default: docs/ of the checkout")
    add_places(findings)
    machine = actions.add_parser("machine", help="tell asv that this machine is its chip class, once, before asv run")
    machine.add_argument("--file", type=Path, metavar="FILE", help="default: asv's own, .asv-machine.json at home")


@contextmanager
def _unheld(baselines: Path | None, err: TextIO) -> Iterator[Here]:
    """Yield this machine as it is: to explain, nobody need be kept from measuring."""
    progress = Progress(err)
    yield unheld(baselines, progress.note)
    progress.clear()


def run(args: argparse.Namespace, out: TextIO, opened: Opened | None = None) -> int:
    """Carry out one action; ``opened`` holds the machine. Raises UsageError, NotMeasuredError, DiskFullError."""
    if opened is None and args.action == "upstream" and args.clone is None:
        if args.first is not None and not is_version(args.first):
            raise UsageError(f"--from {args.first[:40]}", expected="a release, for instance 0.32.0")
        require_arms(*(f"{args.line}=={version}" for version in _versions(args)))
    if args.action in ("import", "steps", "confirm", "findings"):
        require_folder(args.baselines)

    def measuring(baselines: Path | None, err: TextIO) -> AbstractContextManager[Here]:
        return this_machine(baselines, err, busy_policy(args))

    opened = opened or (_unheld if getattr(args, "explain", False) else measuring)
    match args.action:
        case "import":
            return _import(args, out)
        case "steps":
            return _steps(args, out)
        case "confirm":
            return _confirm(args, out, opened)
        case "findings":
            return _findings(args, out)
        case "upstream" | "commits":
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
    collected = building.collect_all(where, run_command)
    listed, faults = building.all_series(where, *collected)
    for fault in (*collected[0].left_out, *faults):
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
    where, said = places(args), dict[str, Judgement]()
    with opened(where.baselines, sys.stderr) as here:
        pairs = building.pairs_to_confirm(where, here.chip.chip_class, args.commits, args.workload, run_command)
        if not pairs:
            out.write(f"no step of {here.chip.chip_class} is open\n")
        for (before, after), judgements, path in confirm(pairs, here, args.budget):
            for workload, judged in judgements.items():
                out.write(f"{workload}, {before[:12]} to {after[:12]}: {judged.verdict} {interval(judged)}\n")
                said[f"{before} {workload}"] = judged
            out.write(f"  kept in {path}\n")
    return said[deciding(said)].verdict.exit_code if said else 0


def _follow(args: argparse.Namespace, out: TextIO, opened: Opened) -> int:
    own = args.action == "commits"
    if not own and bool(args.versions) == bool(args.first):
        raise UsageError("which releases?", expected="--from VERSION or --versions A,B,...")
    with opened(places(args).baselines, sys.stderr) as here:
        if own:
            anchor = anchor_of(here, args.anchor)
            request = Request(OWN, args.budget, args.workload, anchor, again=args.again, time_s=args.time)
            versions = programs(here, args.first)
            out.write(f"{len(versions)} commits changed what decode runs; the anchor is {anchor[:SHORT_COMMIT]}\n")
        else:
            request = Request(
                args.line, args.budget, args.workload, clone=args.clone, again=args.again, time_s=args.time
            )
            versions = _versions(args) or released(args.line, args.first, here)
            require_versions(request, versions)
        chosen = (versions if args.points is None else spread(versions, args.points))[::-1]
        todo = pending(request, chosen, here)
        minutes = expected_s(len(todo), args.budget) / 60
        points = "1 point" if len(chosen) == 1 else f"{len(chosen)} points"
        out.write(f"{points}, {len(chosen) - len(todo)} with a record; at most about {minutes:.0f} min\n")
        for text in todo if args.explain else follow(request, todo, here):
            out.write(f"{text}\n")
            out.flush()
    return 0


def _versions(args: argparse.Namespace) -> list[str]:
    return [name for one in (args.versions or "").split(",") if (name := one.strip())]


def _findings(args: argparse.Namespace, out: TextIO) -> int:
    where = places(args)
    files, faults = build_findings(where.baselines, where.classes)
    docs = args.docs or where.docs
    written = {docs / path: data for path, data in files.items()}
    for fault in faults:
        out.write(f"left out: {fault}\n")
    remedy = "gemma3n-perf history findings, then commit what it wrote"
    return pages.write(written, (), docs / "findings.md", out, check=args.check, remedy=remedy)


def _machine(args: argparse.Namespace, out: TextIO) -> int:
    chip = detect()
    require_known(chip)
    path = save_machine(chip, args.file)
    out.write(f"{path}: asv knows {chip.chip_class}\n")
    out.write("next: asv run HEAD^!\n")
    return 0
