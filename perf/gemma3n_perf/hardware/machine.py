"""Opening this machine for measuring: nobody else measures, it stays awake, and what a measurement needs is at hand."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

import wakepy

from gemma3n_perf.errors import BadConditionsError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.fitness import Check, Doctor, Needs
from gemma3n_perf.hardware.lock import LOCK_PATH, measuring_lock
from gemma3n_perf.hardware.progress import Progress
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.hardware.types import Chip, Conditions, Fault, Stack

_SETTLING_S = 10.0
"""A machine that was busy for a moment, say with what was typed before, is not refused."""


@dataclass(frozen=True, slots=True)
class Machine:
    """This machine, and what measures on it.

    ``stack`` is the software of this process; ``probe`` reads the conditions around a run, of which this process and
    its descendants are no fault; ``faults_of`` says why a run does not count; ``note`` shows a line of progress.
    ``busy`` is what this machine suffered from before measuring began, and was allowed to; no run is discarded for it.
    """

    chip: Chip
    stack: Stack
    probe: ConditionProbe
    faults_of: Callable[[Conditions], tuple[Fault, ...]]
    note: Callable[[str], None]
    busy: Fault | None = None

    @classmethod
    def detect(cls, note: Callable[[str], None] = lambda text: None) -> "Machine":
        """Return this machine. Whoever measures on it opens it, see ``open_machine``."""
        chip = detect()
        limits = Limits.for_cores(chip.cpu_cores or os.cpu_count() or 1)
        probe = ConditionProbe(this_machine(), os.getpid())
        return cls(chip, current_stack(suite_checkout()), probe, partial(faults, limits=limits), note)


@dataclass(frozen=True, slots=True)
class BusyPolicy:
    """What to do on a machine that is not fit to measure, or that somebody measures on already.

    It may take ``wait_s`` seconds to become fit, by default 10, and no time to become free. ``allowed`` then measures
    on a machine that is not fit, with a caution. One that is not ``watched`` only becomes free.
    """

    wait_s: float | None = None
    allowed: bool = False
    watched: bool = True


@contextmanager
def open_machine(err: TextIO, busy: BusyPolicy | None = None, *, lock: Path = LOCK_PATH) -> Iterator[Machine]:
    """Hold this machine's lock and keep it awake, with one line of progress on ``err`` where that is a terminal.

    With a policy for a ``busy`` machine it is watched first, for a second or until it is fit. Raises
    MachineBusyError, BadConditionsError, or NotMeasuredError where ``lock`` cannot be used.
    """
    progress, began, given_s = Progress(err), time.monotonic(), (busy.wait_s if busy else None) or 0.0
    said: list[str] = []

    def waiting(found: str, left_s: float) -> None:
        if given_s and not said:
            progress.say(f"waiting up to {given_s:.0f} s: {found}")
            said.append(found)
        progress.note(f"waiting, {left_s:.0f} s left: {found}")

    with ExitStack() as stack:
        stack.callback(progress.clear)
        stack.enter_context(measuring_lock(lock, wait_s=given_s, waiting=waiting))
        progress.note(stack.enter_context(keep_awake()))
        machine = Machine.detect(progress.note)
        if busy is None or not busy.watched:
            yield machine
            return
        wait_s = _SETTLING_S if busy.wait_s is None and not busy.allowed else given_s
        deadline, doctor = began + wait_s, Doctor.here(Path(), Needs())
        found = doctor.wait(
            deadline - time.monotonic(),
            lambda unfit, pause_s: waiting(_listed(unfit.unfit), deadline - time.monotonic()),
            doctor.look,
        )
        if not found.fit:
            machine = _allowed(machine, found.unfit, busy, progress)
        yield machine


@contextmanager
def keep_awake(keeper: Callable[[], AbstractContextManager[wakepy.Mode]] | None = None) -> Iterator[str]:
    """Keep the machine from sleeping, as far as it lets us; yields what was achieved, in words. Never fails.

    wakepy asks caffeinate on macOS and the desktop's session manager on Linux. A server without a desktop has nobody
    to ask, and rarely sleeps.
    """
    stack = ExitStack()
    try:
        mode = stack.enter_context(keeper() if keeper else wakepy.keep.running(on_fail="pass"))
        status = "not kept awake: neither caffeinate nor a desktop session is here to ask"
        if mode.active:
            status = f"kept awake by {mode.method.name if mode.method else 'wakepy'}"
    except Exception as error:
        status = f"not kept awake: {error}"
    try:
        yield status
    finally:
        # Letting go may fail as well, and must not hide what the measurement raised.
        with suppress(Exception):
            stack.close()


def _allowed(machine: Machine, unfit: tuple[Check, ...], busy: BusyPolicy, progress: Progress) -> Machine:
    """Return a machine on which no run is discarded for what was found. Raises BadConditionsError if that may not be.

    Whatever else befalls a run still counts against it.
    """
    text = _listed(unfit)
    if not busy.allowed:
        remedies = "; ".join(dict.fromkeys(one.remedy or "" for one in unfit))
        raise BadConditionsError(
            f"this machine is not fit to measure: {text}",
            remedy=f"{remedies}; or --wait 300 until it is fit, or --allow-busy to measure with a caution",
        )
    progress.say(f"measuring on a busy machine (--allow-busy): {text}")
    codes = {one.code for one in unfit}

    def faults_of(conditions: Conditions) -> tuple[Fault, ...]:
        return tuple(fault for fault in machine.faults_of(conditions) if fault.code not in codes)

    caution = Fault("busy", f"measured on a busy machine: {text}", "run it again without --allow-busy, when it is idle")
    return replace(machine, faults_of=faults_of, busy=caution)


def _listed(unfit: tuple[Check, ...]) -> str:
    return "; ".join(one.found for one in unfit)
