"""``gemma3n-perf doctor``: whether this machine is fit to measure, and what to do where it is not."""

import argparse
import io
import math
from typing import TextIO

from gemma3n_perf.cli.options import STDOUT, add_json, seconds, write_json
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.fitness import Doctor, Needs, consult
from gemma3n_perf.workload.presets import checkpoints_root

HELP = "say whether this machine is fit to measure"
GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_json(parser)
    parser.add_argument(
        "--wait",
        type=seconds("--wait", least=0),
        default=0.0,
        metavar="SECONDS",
        help="look again, ever later, so long",
    )
    parser.add_argument("--memory", type=float, default=2.0, metavar="GIB", help="free memory needed: %(default)s")
    parser.add_argument("--disk", type=float, default=10.0, metavar="GIB", help="free disk needed: %(default)s")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print what is found; 0 where the machine is fit to measure, 4 where it is not."""
    if not all(0 <= value < math.inf for value in (args.wait, args.memory * GIB, args.disk * GIB)):
        raise UsageError("a number below zero, or none", expected="--wait, --memory and --disk of at least 0")
    needs = Needs(memory_bytes=int(args.memory * GIB), disk_bytes=int(args.disk * GIB))
    said = io.StringIO()
    code = consult(Doctor.here(checkpoints_root(), needs), args.wait, args.json is not None, said)
    write_json(args.json or STDOUT, said.getvalue().encode(), out)
    return code
