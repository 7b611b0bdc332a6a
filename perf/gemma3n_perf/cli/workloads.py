"""``gemma3n-perf workloads``: those that suit this chip, by default and with ``--set wide``, and their checkpoints."""

import argparse
from typing import TextIO

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.workload import load
from gemma3n_perf.workload.presets import checkpoints_root
from gemma3n_perf.workload.workload import defaults, wide_defaults

HELP = "list the workloads that this chip measures: by default, and with --set wide"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: none."""


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print one frozen id a line, then the state of each checkpoint."""
    vendor = detect().vendor
    groups = {"measured by default": defaults(vendor), "with pytest perf/ --set wide": wide_defaults(vendor)}
    for title, workloads in groups.items():
        out.writelines((f"{title}:\n", *(f"  {workload}\n" for workload in workloads)))
    for name in dict.fromkeys(one.checkpoint for workloads in groups.values() for one in workloads):
        out.write(f"{_state(name)}\n")
    return 0


def _state(checkpoint: str) -> str:
    try:
        load.locate(checkpoint, checkpoints_root())
    except PerfError as error:
        return f"{error.found}; {error.remedy}"
    return f"the checkpoint {checkpoint} is here"
