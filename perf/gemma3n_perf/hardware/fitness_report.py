"""A machine's fitness as text and as JSON: the verdict first, then what keeps it from measuring, then the rest."""

from dataclasses import dataclass

import msgspec

from gemma3n_perf.hardware.fitness import Check, Fitness, State
from gemma3n_perf.hardware.types import Conditions

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the command found. As JSON the fields keep these names; a change of them raises ``schema``."""

    schema: int
    chip_class: str
    fit: bool
    looks: int
    checks: tuple[Check, ...]
    conditions: Conditions


def diagnosis(found: Fitness, chip_class: str, looks: int) -> Diagnosis:
    """Return what is told of the last of so many looks at a machine."""
    return Diagnosis(SCHEMA, chip_class, found.fit, looks, found.checks, found.conditions)


def as_json(told: Diagnosis) -> str:
    """Return the diagnosis as indented JSON and a newline."""
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode() + "\n"


def as_text(told: Diagnosis) -> str:
    """Return the diagnosis for a reader: what must change comes first, each with its remedy."""
    unfit = [check for check in told.checks if check.state is State.UNFIT]
    notes = [check for check in told.checks if check.state is State.NOTE]
    lines = [f"{told.chip_class}: {_verdict(len(unfit))}"]
    for check in (*unfit, *notes):
        lines += ["", f"{check.state} {check.code}: {check.found}", f"  next: {check.remedy}"]
    width = max(len(check.subject) for check in told.checks)
    lines += ["", *(f"{check.subject:<{width}}  {_cell(check)}" for check in told.checks)]
    return "\n".join(lines) + "\n"


def waiting(found: Fitness, pause_s: float) -> str:
    """Return the line that says why a measurement waits, and for how long."""
    why = "; ".join(f"{check.code}: {check.found}" for check in found.unfit)
    return f"waiting {pause_s:.0f} s: {why}"


def _verdict(unfit: int) -> str:
    return "fit to measure" if not unfit else f"not fit to measure, for {unfit} reason{'' if unfit == 1 else 's'}"


def _cell(check: Check) -> str:
    return "unfit, see above" if check.state is State.UNFIT else check.found
