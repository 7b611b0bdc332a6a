"""``gemma3n-perf site``: build the site from the records, offline, into one folder."""

import argparse
import os
import sys
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.options import add_alias
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.stack import suite_checkout
from gemma3n_perf.history.building import Places, build_site
from gemma3n_perf.history.evidence import recorded_evidence
from gemma3n_perf.store.files import data_folder, require_folder

HELP = "build the site: asv's pages and a first page of our own"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_places(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: site/ of the checkout")
    add_alias(parser, "--output", "--out")


def add_places(parser: argparse.ArgumentParser) -> None:
    """Declare where records are found, for every command that reads a history."""
    parser.add_argument("--repo", type=Path, metavar="DIR", help="default: the checkout this suite is run from")
    parser.add_argument("--baselines", type=Path, metavar="DIR", help="default: baselines/ of the checkout")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="asv's results; default: .asv/results of the checkout"
    )
    parser.add_argument("--local", action="store_true", help="this machine's own sessions too, not only committed ones")


def places(args: argparse.Namespace) -> Places:
    """Return the places that the arguments name."""
    repo = args.repo or suite_checkout() or Path()
    return Places(
        repo,
        args.baselines or repo / "baselines",
        repo / "docs",
        args.results or repo / ".asv/results",
        Path(os.path.realpath(getattr(args, "out", None) or repo / "site")),
        tuple(sorted((data_folder() / "sessions").glob("*"))) if args.local else (),
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Build the site. Raises UsageError, NotMeasuredError, DiskFullError."""
    require_folder(args.baselines)
    progress = Progress(sys.stderr)
    where = places(args)
    try:
        progress.note("judging evidence")
        evidence, faults = recorded_evidence(where.baselines)
        built = build_site(where, run_command, progress.note, evidence=evidence, faults=faults)
    finally:
        progress.clear()
    for note in built.notes:
        out.write(f"left out or noted: {note}\n")
    points, steps = sum(len(one.points) for one in built.series), sum(len(one.steps) for one in built.series)
    out.write(f"{where.site}: {len(built.series)} series, {points} points, {steps} steps\n")
    return 0
