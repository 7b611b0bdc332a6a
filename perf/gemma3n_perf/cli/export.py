"""``gemma3n-perf export FILE...``: verdicts and series for a dashboard that a team has already."""

import argparse
import sys
from pathlib import Path
from typing import TextIO

from gemma3n_perf.cli.options import STDOUT, add_json, write_json
from gemma3n_perf.history.exporting import FORMATS, export, read

HELP = "write verdicts and series for Bencher or github-action-benchmark"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="sessions of baselines/, records of duel --json, evidence"
    )
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="default: %(default)s")
    add_json(parser)


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Write one file's report, or a series of several; says what has no number. Raises as ``read`` and ``export``."""
    reports = [read(path) for path in args.files]
    for text in (text for one in reports for text in one.missing):
        print(f"left out: {text}", file=sys.stderr)
    path = args.json or STDOUT
    if not write_json(path, export(reports, args.format), out):
        print(path, file=out)
    return 0
