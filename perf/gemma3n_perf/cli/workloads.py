"""``gemma3n-perf workloads``: those that suit this chip, by default and with ``--set wide``, and their checkpoints."""

import argparse
from collections.abc import Iterable
from typing import TextIO

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.workload import load
from gemma3n_perf.workload.presets import checkpoints_root
from gemma3n_perf.workload.workload import Workload, defaults, wide_defaults

HELP = "list the workloads that this chip measures: by default, and with --set wide"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print one frozen id a line, with the state of its checkpoint."""
    vendor = detect().vendor
    _print(defaults(vendor), "", out)
    _print(wide_defaults(vendor), "pytest perf/ --set wide; ", out)
    return 0


def _print(workloads: Iterable[Workload], note: str, out: TextIO) -> None:
    for workload in workloads:
        try:
            load.locate(workload.checkpoint, checkpoints_root())
            state = "checkpoint is here"
        except PerfError as error:
            state = f"{error.found}; {error.remedy}"
        print(f"{workload}  ({note}{state})", file=out)
