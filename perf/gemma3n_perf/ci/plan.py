"""What a pull request is in for: a measurement on every chip class, nothing at all, or a refusal. Decided in seconds.

An event is untrusted text. An approval is of one commit: a fork is measured only where a maintainer dispatched
the workflow from the default branch and named that commit; a label could stay while the commit under it changes.

What is compared is the program that decodes, as both commits declare it: where that is the same, nothing is measured.
A change's fusions and evidence are judged by what the branch it wants to enter has: harness, the judges among the
fusions, policy, noise floors, locks, machines. What plans, answers and comments imports no fusion of the change. Only
Python itself is used, so that a change of documentation waits for no installation.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from gemma3n_perf.errors import MalformedRecordError, UsageError
from gemma3n_perf.gate.change import JUDGES, Touched
from gemma3n_perf.gate.policy import read_policy
from gemma3n_perf.hardware.git import Repository, changed_files_text
from gemma3n_perf.store.files import contents

# Their branches are in the repository itself, but what they bring in was written elsewhere.
UPDATERS = frozenset({"dependabot[bot]", "renovate[bot]"})
# What a change must not both bring and be measured by without somebody noticing.
HARNESS = ("perf/", "baselines/policy.toml", ".github/", ".ci/", "Makefile", "requirements", "pyproject.toml")
# Nothing else of that folder: a package, a library or bytecode in it would come before the module of its name.
_JUDGED = (
    ":(exclude,glob)perf/gemma3n_perf/fusions/*.py",
    ":(exclude,glob)perf/gemma3n_perf/fusions/kernels/**/*.py",
    ":(exclude,glob)perf/gemma3n_perf/fusions/kernels/**/*.cu",
    ":(exclude,glob)baselines/*/fusions/**",
    ":(exclude)baselines/accepted",
)
_STAGE_S = 120.0
_SENTENCES = 3

# A label becomes part of a workflow, a class of a file's name: neither may hold anything that means something there.
CLASS_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,78}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull request at one commit. ``approved`` is the commit a maintainer dispatched for, None without one.

    ``passed`` says that a run which was dispatched for this commit ended well.
    """

    number: int
    head: str
    base: str
    head_repo: str
    base_repo: str
    author: str
    approved: str | None = None
    passed: bool = False

    @property
    def foreign(self) -> bool:
        """Whether its code comes from outside: a fork, or a bot that updates dependencies."""
        return self.head_repo != self.base_repo or self.author in UPDATERS


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
    """What is to be measured, and where, or why not; ``harness`` are changed files that measure or judge.

    ``programs`` are the classes on which the program that decodes changes, so that base and head are compared there.
    """

    state: State
    pull: Pull
    reason: str
    remedy: str = ""
    classes: tuple[ChipClass, ...] = ()
    harness: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    def outputs(self) -> dict[str, str]:
        """Return the outputs of the planning job, each one line of ASCII."""
        return {
            "state": self.state.value,
            "matrix": json.dumps(matrix(self.classes)),
            # The environments that guard the machines. The second has required reviewers: docs/runners.md.
            "environment": "measure-fork" if self.pull.foreign else "measure",
            "head": self.pull.head,
            "base": self.pull.base,
            "plan": json.dumps(asdict(self)),
        }


def read_pull(event_name: str, event: Path, pull: Path | None = None, passed: Path | None = None) -> Pull:
    """Return the pull request that the webhook's payload ``event`` is about. Raises UsageError, MalformedRecordError.

    A ``workflow_dispatch`` names number and commit in its inputs; ``pull`` is then the API's answer for that number.
    ``passed`` are the names of dispatched runs that ended well.
    """
    payload: dict[str, Any] = _read(event, dict)
    if event_name == "pull_request":
        found = _pull(_at(payload, "pull_request", dict), None)
        names = _read(passed, list) if found.foreign and passed is not None and passed.exists() else []
        return replace(found, passed=f"gate of #{found.number} at {found.head}" in names)
    if event_name != "workflow_dispatch":
        raise UsageError(f"event {event_name}", expected="pull_request or workflow_dispatch")
    if pull is None:
        raise UsageError("a dispatched run without --pull", expected="the API's answer for the pull request, as a file")
    default = _at(_at(payload, "repository", dict), "default_branch", str)
    if payload.get("ref") != f"refs/heads/{default}":
        raise UsageError(
            f"dispatched from {str(payload.get('ref'))[:80]!r}",
            expected=f"the default branch, {default}: its workflow and rules are the reviewed ones",
            remedy=f"gh workflow run gate.yml --ref {default} -f pull_request=N -f commit=COMMIT",
        )
    inputs = _at(payload, "inputs", dict)
    approved = str(inputs.get("commit", "")).strip()
    if not _COMMIT.fullmatch(approved):
        raise UsageError(
            f"commit {approved[:60]!r} of the dispatch",
            expected="a full commit id: 40 digits, so that it names one commit",
        )
    found = _pull(_read(pull, dict), approved)
    if str(found.number) != str(inputs.get("pull_request", "")).strip():
        raise MalformedRecordError(
            f"the API answered for pull request {found.number}", expected="the one dispatched for"
        )
    return found


def _pull(tree: dict[str, Any], approved: str | None) -> Pull:
    head, base = _at(tree, "head", dict), _at(tree, "base", dict)
    # A fork that was deleted leaves null here; no name is no name of ours.
    head_repo, user = (one if isinstance(one, dict) else {} for one in (head.get("repo"), tree.get("user")))
    found = Pull(
        number=_at(tree, "number", int),
        head=_at(head, "sha", str),
        base=_at(base, "sha", str),
        head_repo=str(head_repo.get("full_name") or "a deleted fork"),
        base_repo=_at(_at(base, "repo", dict), "full_name", str),
        author=str(user.get("login") or ""),
        approved=approved,
    )
    if not (_COMMIT.fullmatch(found.head) and _COMMIT.fullmatch(found.base) and _NAME.fullmatch(found.base_repo)):
        raise MalformedRecordError("the event's commits or repository are not what GitHub sends", expected="full ids")
    return found


def _read(path: Path, kind: type[_T]) -> _T:
    try:
        tree = json.loads(contents(path))
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedRecordError(f"{path.name}: {error}", expected=f"a {kind.__name__} from GitHub") from error
    if not isinstance(tree, kind):
        raise MalformedRecordError(f"{path.name} holds no {kind.__name__}", expected="what GitHub's API sends")
    return tree


def _at(tree: dict[str, Any], name: str, kind: type[_T]) -> _T:
    value = tree.get(name)
    if not isinstance(value, kind):
        raise MalformedRecordError(f"the event has no {name}", expected=f"{name} as GitHub sends it")
    return value


def plan(
    pull: Pull, change: Touched, classes: Sequence[ChipClass], programs: Mapping[str, Sequence[str]] | None = None
) -> Plan:
    """Decide what happens to a pull request with this change; ``programs`` is what it changes of them, by class.

    Whether there is anything to measure comes first: a fork that corrects a page needs nobody's approval.
    """
    programs = programs or {}
    gated = set(change.files)
    harness = tuple(path for path in change.changed if path.startswith(HARNESS) and path not in gated)

    def refused(reason: str, first: str) -> Plan:
        remedy = f"{first} gh workflow run gate.yml -f pull_request={pull.number} -f commit={pull.head}"
        return Plan(State.REFUSED, pull, reason, remedy, harness=harness)

    if not gated and not programs:
        count = f"{len(change.changed)} changed file{'' if len(change.changed) == 1 else 's'}"
        return Plan(State.NOTHING, pull, f"the same program, and no fusion among {count}", harness=harness)
    if pull.approved is not None and pull.approved != pull.head:
        reason = f"{pull.approved[:12]} was approved, and the pull request is now at {pull.head[:12]}"
        return refused(reason, "look at the new commit, then")
    if pull.passed:
        reason = f"a run that a maintainer dispatched for {pull.head[:12]} passed"
        return Plan(State.NOTHING, pull, reason, harness=harness)
    if pull.foreign and pull.approved is None:
        who = f"{pull.author}'s dependencies" if pull.author in UPDATERS else f"the fork {pull.head_repo}"
        reason = f"code of {who} runs on no measuring machine before a maintainer approves this very commit"
        return refused(reason, "a maintainer reads the change, then")
    names = list(dict.fromkeys(Path(path).name for path in change.changed if path in gated))
    sentences = list(dict.fromkeys(one for changed in programs.values() for one in changed))
    more = [f"{len(sentences) - _SENTENCES} more changes"] if len(sentences) > _SENTENCES else []
    found = [*([f"{changed_files_text(names)} changed"] if names else []), *sentences[:_SENTENCES], *more]
    # A fusion is measured everywhere; a program where it changes.
    chosen = tuple(one for one in classes if gated or one.name in programs)
    return Plan(State.MEASURE, pull, "; ".join(found), classes=chosen, harness=harness, programs=tuple(programs))


def read_plan(text: str) -> Plan:
    """Return the plan that ``outputs`` wrote. Raises MalformedRecordError for anything else."""
    try:
        tree = json.loads(text)
        classes = tuple(ChipClass(one["name"], tuple(one["runner"]), one["required"]) for one in tree["classes"])
        pull, harness, programs = Pull(**tree["pull"]), tuple(tree["harness"]), tuple(tree.get("programs", ()))
        texts = (pull.head, pull.base, pull.head_repo, pull.base_repo, pull.author, tree["reason"], tree["remedy"])
        "".join((*texts, *harness, *programs, *(label for one in classes for label in (one.name, *one.runner))))
        return Plan(State(tree["state"]), pull, tree["reason"], tree["remedy"], classes, harness, programs)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedRecordError(
            "the planning job left no plan", expected="its output", remedy="see what the planning job says"
        ) from error


def write_outputs(found: Plan, path: Path) -> None:
    """Append the outputs to the file GitHub reads them from. No value of ours holds a line break."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in found.outputs().items())


def stage(candidate: Repository, head: str, base: str) -> None:
    """Make a checkout of ``head`` into the one that judges it, with all but what is judged from ``base``.

    HEAD stays where it is: evidence must be of that commit. Raises UsageError where git cannot.
    """
    at = candidate.commit()
    if at != head:
        raise UsageError(
            f"{candidate.root.name} is at {at[:12] if at else 'no commit'}",
            expected=f"the commit that is judged, {head[:12]}",
            remedy="check out that commit, with its history (fetch-depth: 0)",
        )
    judges = candidate.git("ls-tree", "-r", "--name-only", "-z", base, "--", *JUDGES).out.split("\0")
    for paths in ((".", *_JUDGED), tuple(filter(None, judges))):
        if paths:
            candidate.git(
                "restore", f"--source={base}", "--staged", "--worktree", "--", *paths, timeout_s=_STAGE_S
            ).checked(
                UsageError,
                "git restore failed",
                expected="a clone that holds the change and the commit it starts from",
                remedy="fetch both: a shallow clone has no history (fetch-depth: 0)",
            )


def read_classes(path: Path) -> tuple[ChipClass, ...]:
    """Return the classes of a policy file that have a machine, in its order: none that awaits one.

    Raises UsageError for a typo, a required class without a runner, a name or label that could mean something else.
    """
    # The same reader as the gate's, so that a file which is good for one is good for the other.
    policy = read_policy(path)
    for name, one in policy.classes.items():
        if not CLASS_NAME.fullmatch(name):
            raise _wrong(path, f"classes.{name}: no chip class has such a name")
        for label in one.runner:
            if not _LABEL.fullmatch(label):
                raise _wrong(path, f"classes.{name}.runner: {label!r} is no label of a runner")
        if name in (*policy.required, *policy.compared) and not one.runner:
            raise _wrong(path, f"class {name} is required, and has no runner to measure it")
    there = {name: one for name, one in policy.classes.items() if one.runner and name not in policy.awaiting}
    return tuple(ChipClass(name, one.runner, name in policy.required) for name, one in there.items())


def matrix(classes: Iterable[ChipClass]) -> dict[str, list[dict[str, Any]]]:
    """Return the classes as the ``strategy.matrix`` of a job."""
    return {"include": [{"class": one.name, "runner": list(one.runner)} for one in classes]}


def _wrong(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{path.name}: {what}",
        expected='runner = ["self-hosted", "macOS", "ARM64", "<chip class>"] for every class',
        remedy="mend the policy file; until then nothing is measured and nothing admitted",
    )
