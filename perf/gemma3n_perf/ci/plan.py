"""What a pull request is in for: a measurement on every chip class, nothing at all, or a refusal. Decided in seconds.

Opinion: the rules and the list of machines are those of the branch the change wants to enter, never the change's own.
Only Python itself is used, so that a change of documentation waits for no installation.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

from gemma3n_perf.ci.classes import ChipClass, matrix
from gemma3n_perf.ci.event import UPDATERS, Pull
from gemma3n_perf.errors import MalformedRecordError

FUSIONS = PurePosixPath("perf/gemma3n_perf/fusions")
BASELINES = PurePosixPath("baselines")
# What a change must not both bring and be measured by without somebody noticing.
HARNESS = ("perf/", "baselines/policy.toml", ".github/", ".ci/", "Makefile", "requirements", "pyproject.toml")
OWN, FORK = "measure", "measure-fork"
"""The environments of measuring jobs. The second has required reviewers: docs/runners.md."""


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


def plan(pull: Pull, changed: Sequence[str], classes: Sequence[ChipClass]) -> Plan:
    """Decide what happens to a pull request that changes these paths.

    Whether there is anything to measure comes first: a fork that corrects a page needs nobody's approval.
    """
    touched = [path for path in changed if touches_fusion(path)]
    harness = tuple(path for path in changed if path.startswith(HARNESS) and not touches_fusion(path))
    if not touched:
        count = f"{len(changed)} changed file{'' if len(changed) == 1 else 's'}"
        reason = f"no fusion and no evidence for one among {count}"
        return Plan(State.NOTHING, pull, reason, harness=harness)
    if pull.approved is not None and pull.approved != pull.head:
        reason = f"{pull.approved[:12]} was approved, and the pull request is now at {pull.head[:12]}"
        return Plan(State.REFUSED, pull, reason, _dispatch(pull, "look at the new commit, then"), harness=harness)
    if pull.foreign and pull.approved is None:
        who = f"{pull.author}'s dependencies" if pull.author in UPDATERS else f"the fork {pull.head_repo}"
        reason = f"code of {who} runs on no measuring machine before a maintainer approves this very commit"
        return Plan(
            State.REFUSED, pull, reason, _dispatch(pull, "a maintainer reads the change, then"), harness=harness
        )
    names = list(dict.fromkeys(PurePosixPath(path).name for path in touched))
    reason = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''} changed"
    return Plan(State.MEASURE, pull, reason, classes=tuple(classes), harness=harness)


def read_plan(text: str) -> Plan:
    """Return the plan that ``outputs`` wrote. Raises MalformedRecordError for anything else."""
    try:
        told = json.loads(text)
        classes = tuple(ChipClass(one["name"], tuple(one["runner"]), one["required"]) for one in told["classes"])
        return Plan(
            State(told["state"]), Pull(**told["pull"]), told["reason"], told["remedy"], classes, tuple(told["harness"])
        )
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedRecordError(
            "the planning job left no plan", expected="its output", remedy="see what the planning job says"
        ) from error


def touches_fusion(path: str) -> bool:
    """Whether a path is code of the fusions or evidence for one. Documentation beside them is neither."""
    one = PurePosixPath(path)
    if one.is_relative_to(FUSIONS):
        return one.suffix == ".py"
    return one.is_relative_to(BASELINES) and one.parent.name == "fusions" and one.suffix == ".json"


def write_outputs(found: Plan, path: Path) -> None:
    """Append the outputs to the file GitHub reads them from. No value of ours holds a line break."""
    lines = [f"{name}={value}\n" for name, value in found.outputs().items()]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(lines)


def _dispatch(pull: Pull, first: str) -> str:
    return f"{first} gh workflow run gate.yml -f pull_request={pull.number} -f commit={pull.head}"
