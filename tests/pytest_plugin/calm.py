"""A pytest plugin for real sessions of the tests' own (``-p tests.pytest_plugin.calm``): a busy machine fails no test.

It keeps the session's lock and files below ``CALM_FOLDER``, and finds no fault with any run. It says so in a file
there, for who waits until runs are taken.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

from gemma3n_perf.duel import run
from gemma3n_perf.hardware import machine
from gemma3n_perf.hardware.fitness import Doctor, Fitness
from gemma3n_perf.hardware.machine import open_machine
from gemma3n_perf.hardware.types import Conditions, Fault
from gemma3n_perf.pytest_plugin import session
from gemma3n_perf.store import files

FOLDER = Path(os.environ["CALM_FOLDER"])


def no_faults(conditions: Conditions, limits: Any) -> tuple[Fault, ...]:
    """Let every run count."""
    (FOLDER / "a-run-was-taken").touch()
    return ()


def fit(self: Doctor) -> Fitness:
    """Find this machine fit."""
    return Fitness((), Conditions())


vars(machine).update(faults=no_faults)
Doctor.look = fit  # type: ignore[method-assign]
for module in (session, run):
    vars(module).update(open_machine=partial(open_machine, lock=FOLDER / "lock"))
files.data_folder = lambda: FOLDER / "data"
