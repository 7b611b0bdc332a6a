"""``gemma3n-perf workloads``: the workloads that suit this chip, and whether their checkpoints are here."""

import argparse
from typing import TextIO

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.workload import cache, load, workload

HELP = "list the workloads that this chip measures by default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print one frozen id a line, with the state of its checkpoint."""
    chip = detect()
    for each in workload.defaults(chip.vendor):
        try:
            load.locate(each.checkpoint, cache.checkpoints_root())
            state = "checkpoint is here"
        except PerfError as error:
            state = f"{error.found}; {error.remedy}"
        print(f"{each}  ({state})", file=out)
    return 0
