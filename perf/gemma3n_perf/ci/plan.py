"""What a pull request is in for: a measurement on every chip class, nothing at all, or a refusal. Decided in seconds.

The rules and the list of machines are those of the branch the change wants to enter, never the change's own. Only
Python itself is used, so that a change of documentation waits for no installation.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from gemma3n_perf.ci.event import UPDATERS, Pull
from gemma3n_perf.errors import MalformedRecordError, UsageError
from gemma3n_perf.gate import policy_file
from gemma3n_perf.gate.change import Touched

# What a change must not both bring and be measured by without somebody noticing.
HARNESS = ("perf/", "baselines/policy.toml", ".github/", ".ci/", "Makefile", "requirements", "pyproject.toml")
OWN, FORK = "measure", "measure-fork"
"""The environments of measuring jobs. The second has required reviewers: docs/runners.md."""

# A label becomes part of a workflow, a class of a file's name: neither may hold anything that means something there.
CLASS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,78}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ChipClass:
    """A class that is measured: the labels of its runners, and whether the gate cannot do without it."""

    name: str
    runner: tuple[str, ...]
    required: bool


class State(StrEnum):
    """What is to happen."""

    MEASURE = "measure"
    NOTHING = "nothing"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured for a pull request, where, and why not, where not.

    ``harness`` are the changed files that take part in measuring or judging.
    """

    state: State
    pull: Pull
    reason: str
    remedy: str = ""
    classes: tuple[ChipClass, ...] = ()
    harness: tuple[str, ...] = ()

    @property
    def environment(self) -> str:
        """The GitHub environment that guards the machines."""
        return FORK if self.pull.foreign else OWN

    def outputs(self) -> dict[str, str]:
        """Return the outputs of the planning job, each one line of ASCII."""
        return {
            "state": self.state.value,
            "matrix": json.dumps(matrix(self.classes)),
            "environment": self.environment,
            "head": self.pull.head,
            "base": self.pull.base,
            "plan": json.dumps(asdict(self)),
        }


def plan(pull: Pull, change: Touched, classes: Sequence[ChipClass]) -> Plan:
    """Decide what happens to a pull request with this change.

    Whether there is anything to measure comes first: a fork that corrects a page needs nobody's approval.
    """
    gated = set(change.files)
    harness = tuple(path for path in change.changed if path.startswith(HARNESS) and path not in gated)

    def refused(reason: str, first: str) -> Plan:
        remedy = f"{first} gh workflow run gate.yml -f pull_request={pull.number} -f commit={pull.head}"
        return Plan(State.REFUSED, pull, reason, remedy, harness=harness)

    if not gated:
        count = f"{len(change.changed)} changed file{'' if len(change.changed) == 1 else 's'}"
        return Plan(State.NOTHING, pull, f"no fusion and no evidence for one among {count}", harness=harness)
    if pull.approved is not None and pull.approved != pull.head:
        reason = f"{pull.approved[:12]} was approved, and the pull request is now at {pull.head[:12]}"
        return refused(reason, "look at the new commit, then")
    if pull.foreign and pull.approved is None:
        who = f"{pull.author}'s dependencies" if pull.author in UPDATERS else f"the fork {pull.head_repo}"
        reason = f"code of {who} runs on no measuring machine before a maintainer approves this very commit"
        return refused(reason, "a maintainer reads the change, then")
    names = list(dict.fromkeys(Path(path).name for path in change.changed if path in gated))
    reason = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} changed"
    return Plan(State.MEASURE, pull, reason, classes=tuple(classes), harness=harness)


def read_plan(text: str) -> Plan:
    """Return the plan that ``outputs`` wrote. Raises MalformedRecordError for anything else."""
    try:
        tree = json.loads(text)
        classes = tuple(ChipClass(one["name"], tuple(one["runner"]), one["required"]) for one in tree["classes"])
        return Plan(
            State(tree["state"]), Pull(**tree["pull"]), tree["reason"], tree["remedy"], classes, tuple(tree["harness"])
        )
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedRecordError(
            "the planning job left no plan", expected="its output", remedy="see what the planning job says"
        ) from error


def write_outputs(found: Plan, path: Path) -> None:
    """Append the outputs to the file GitHub reads them from. No value of ours holds a line break."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in found.outputs().items())


def read_classes(path: Path) -> tuple[ChipClass, ...]:
    """Return the classes of a policy file that have a runner, in its order: adding a class is adding its table.

    Raises UsageError naming what is wrong: a typo, a required class that no runner measures, a name or label that
    could mean something else where it is put.
    """
    # The same reader as the gate's, so that a file which is good for one is good for the other.
    policy = policy_file.read(path)
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
