"""``gemma3n-perf doctor``: whether this machine is fit to measure, and what to do where it is not."""

import argparse
import math
import os
from dataclasses import dataclass
from typing import TextIO

from gemma3n_perf.errors import BadConditionsError, UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import Limits
from gemma3n_perf.hardware.fitness import Doctor, Fitness, Needs
from gemma3n_perf.hardware.fitness_report import as_json, as_text, diagnosis, waiting
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.workload.cache import checkpoints_root

HELP = "say whether this machine is fit to measure"
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Looking:
    """A doctor, and the class of the machine it looks at."""

    doctor: Doctor
    chip_class: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="look again, ever later, so long")
    parser.add_argument("--memory", type=float, default=2.0, metavar="GIB", help="free memory needed: %(default)s")
    parser.add_argument("--disk", type=float, default=10.0, metavar="GIB", help="free disk needed: %(default)s")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print what is found; 0 where the machine is fit to measure, 4 where it is not."""
    if not all(0 <= value < math.inf for value in (args.wait, args.memory, args.disk)):
        raise UsageError("a number below zero, or none", expected="--wait, --memory and --disk of at least 0")
    looking = here(Needs(memory_bytes=int(args.memory * GIB), disk_bytes=int(args.disk * GIB)))
    return consult(looking.doctor, looking.chip_class, args.wait, args.json, out)


def here(needs: Needs) -> Looking:
    """Return the doctor of this machine."""
    system = this_machine()
    limits = Limits.for_cores(os.cpu_count() or 1)
    return Looking(Doctor(system, os.getpid(), limits, checkpoints_root(), needs), detect(system).chip_class)


def consult(doctor: Doctor, chip_class: str, wait_s: float, json: bool, out: TextIO) -> int:
    """Let ``doctor`` look, print the diagnosis and return the exit code."""
    looks = 1

    def told(found: Fitness, pause_s: float) -> None:
        nonlocal looks
        looks += 1
        if not json:
            out.write(waiting(found, pause_s) + "\n")
            out.flush()

    found = doctor.wait(wait_s, told)
    result = diagnosis(found, chip_class, looks)
    out.write(as_json(result) if json else as_text(result))
    return 0 if found.fit else BadConditionsError.exit_code
