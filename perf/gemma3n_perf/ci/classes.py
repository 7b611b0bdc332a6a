"""The chip classes of the policy file, as a matrix for GitHub: adding a class is adding its table."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError

# A label becomes part of a workflow, a class of a file's name: neither may hold anything that means something there.
CLASS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,78}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ChipClass:
    """A class that is measured: the labels of its runners, and whether the gate cannot do without it."""

    name: str
    runner: tuple[str, ...]
    required: bool


def read_classes(path: Path) -> tuple[ChipClass, ...]:
    """Return the classes of a policy file that have a runner, in its order.

    Raises UsageError naming what is wrong: a typo, a required class that no runner measures, a name or label that
    could mean something else where it is put.
    """
    # The same reader as the gate's, so that a file which is good for one is good for the other.
    from gemma3n_perf.gate import policy_file as gate_policy_file

    policy = gate_policy_file.read(path)
    found = []
    for name, one in policy.classes.items():
        required = name in policy.required
        if not CLASS_NAME.fullmatch(name):
            raise _wrong(path, f"classes.{name}: no chip class has such a name")
        for label in one.runner:
            if not _LABEL.fullmatch(label):
                raise _wrong(path, f"classes.{name}.runner: {label!r} is no label of a runner")
        if required and not one.runner:
            raise _wrong(path, f"class {name} is required, and has no runner to measure it")
        if one.runner:
            found.append(ChipClass(name, one.runner, required))
    return tuple(found)


def matrix(classes: Iterable[ChipClass]) -> dict[str, list[dict[str, Any]]]:
    """Return the classes as the ``strategy.matrix`` of a job."""
    return {"include": [{"class": one.name, "runner": list(one.runner)} for one in classes]}


def _wrong(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{path.name}: {what}",
        expected='runner = ["self-hosted", "macOS", "ARM64", "<chip class>"] for every class',
        remedy="mend the policy file; until then nothing is measured and nothing admitted",
    )
