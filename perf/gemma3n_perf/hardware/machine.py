"""Opening this machine for measuring: nobody else measures, it stays awake, and what a measurement needs is at hand."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.keep_awake import keep_awake
from gemma3n_perf.hardware.lock import LOCK_PATH, measuring_lock
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.hardware.types import Chip, Conditions, Fault, Stack


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine, and what measures on it.

    ``stack`` is the software of this process; ``probe`` reads the conditions around a run, of which this process and
    its descendants are no fault; ``faults_of`` says why a run does not count; ``note`` shows a line of progress.
    """

    chip: Chip
    stack: Stack
    probe: ConditionProbe
    faults_of: Callable[[Conditions], tuple[Fault, ...]]
    note: Callable[[str], None]

    @classmethod
    def detect(cls, note: Callable[[str], None] = lambda text: None) -> "Machine":
        """Return this machine. Whoever measures on it opens it, see ``open_machine``."""
        chip = detect()
        limits = Limits.for_cores(chip.cpu_cores or os.cpu_count() or 1)
        probe = ConditionProbe(this_machine(), os.getpid())
        return cls(chip, current_stack(suite_checkout()), probe, partial(faults, limits=limits), note)


@contextmanager
def open_machine(err: TextIO, *, wait_s: float = 0.0, lock: Path = LOCK_PATH) -> Iterator[Machine]:
    """Hold this machine's lock and keep it awake, with one line of progress on ``err`` where that is a terminal.

    Waits up to ``wait_s`` seconds for another measurement to end. Raises MachineBusyError, or NotMeasuredError where
    ``lock`` cannot be used.
    """
    progress = Progress(err)
    with ExitStack() as stack:
        stack.enter_context(measuring_lock(lock, wait_s=wait_s))
        stack.callback(progress.clear)
        progress.note(stack.enter_context(keep_awake()))
        yield Machine.detect(progress.note)
