"""``gemma3n-perf workloads``: the workloads that suit this chip, and whether their checkpoints are here."""

import argparse
from typing import TextIO

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.workload import load
from gemma3n_perf.workload.presets import checkpoints_root
from gemma3n_perf.workload.workload import defaults

HELP = "list the workloads that this chip measures by default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print one frozen id a line, with the state of its checkpoint."""
    for workload in defaults(detect().vendor):
        try:
            load.locate(workload.checkpoint, checkpoints_root())
            state = "checkpoint is here"
        except PerfError as error:
            state = f"{error.found}; {error.remedy}"
        print(f"{workload}  ({state})", file=out)
    return 0
