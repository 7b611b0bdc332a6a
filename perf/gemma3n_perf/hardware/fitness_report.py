"""A machine's fitness as text and as JSON: the verdict first, then what keeps it from measuring, then every check."""

from dataclasses import dataclass
from typing import TextIO

import msgspec

from gemma3n_perf.errors import BadConditionsError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.fitness import Check, Doctor, Fitness, State
from gemma3n_perf.hardware.types import Conditions

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the command found, after so many ``looks`` at the machine. The fields are the names in the JSON.

    A change of them raises ``schema``.
    """

    schema: int
    chip_class: str
    fit: bool
    looks: int
    checks: tuple[Check, ...]
    conditions: Conditions


def consult(doctor: Doctor, wait_s: float, json: bool, out: TextIO) -> int:
    """Let ``doctor`` examine its machine, print the diagnosis and return the exit code: 0 where fit, 4 where not.

    Each examination that finds it unfit, while ``wait_s`` seconds are not over, prints why and how long it waits.
    """
    looks = 1

    def unfit(found: Fitness, pause_s: float) -> None:
        nonlocal looks
        looks += 1
        if not json:
            out.write(f"waiting {pause_s:.0f} s: {'; '.join(f'{one.code}: {one.found}' for one in found.unfit)}\n")
            out.flush()

    found = doctor.wait(wait_s, unfit)
    result = Diagnosis(SCHEMA, detect(doctor.system).chip_class, found.fit, looks, found.checks, found.conditions)
    out.write(msgspec.json.format(msgspec.json.encode(result), indent=2).decode() + "\n" if json else _text(result))
    return 0 if found.fit else BadConditionsError.exit_code


def _text(result: Diagnosis) -> str:
    """What must change comes first, each with its remedy."""
    unfit = [check for check in result.checks if check.state is State.UNFIT]
    notes = [check for check in result.checks if check.state is State.NOTE]
    reasons = f"not fit to measure, for {len(unfit)} reason{'' if len(unfit) == 1 else 's'}"
    lines = [f"{result.chip_class}: {reasons if unfit else 'fit to measure'}"]
    for check in (*unfit, *notes):
        lines += ["", f"{check.state} {check.code}: {check.found}", f"  next: {check.remedy}"]
    width = max(len(check.subject) for check in result.checks)
    lines.append("")
    for check in result.checks:
        lines.append(f"{check.subject:<{width}}  {'unfit, see above' if check in unfit else check.found}")
    return "\n".join(lines) + "\n"
