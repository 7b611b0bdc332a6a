"""Which pull request is to be measured: a workflow's event, read as the untrusted text that parts of it are.

An approval is of one commit. A fork is measured only where a maintainer dispatched the workflow from the
default branch and named that commit; a label could stay while the commit under it changes.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gemma3n_perf.errors import MalformedRecordError, UsageError

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+")
# Their branches are in the repository itself, but what they bring in was written elsewhere.
UPDATERS = frozenset({"dependabot[bot]", "renovate[bot]"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Pull:
    """One pull request at one commit. ``approved`` is the commit a maintainer dispatched for, None without one."""

    number: int
    head: str
    base: str
    head_repo: str
    base_repo: str
    author: str
    approved: str | None = None

    @property
    def foreign(self) -> bool:
        """Whether its code comes from outside: a fork, or a bot that updates dependencies."""
        return self.head_repo != self.base_repo or self.author in UPDATERS


def read(event_name: str, event: Path, pull: Path | None = None) -> Pull:
    """Return the pull request an event is about.

    ``event`` is the webhook payload. A ``workflow_dispatch`` names number and commit in its inputs; ``pull`` is then
    what the API answered for that number. Raises UsageError, MalformedRecordError.
    """
    payload = _load(event)
    if event_name == "pull_request":
        return _pull(_at(payload, "pull_request", dict), None)
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
    found = _pull(_load(pull), approved)
    if str(found.number) != str(inputs.get("pull_request", "")).strip():
        raise MalformedRecordError(
            f"the API answered for pull request {found.number}", expected="the one dispatched for"
        )
    return found


def _pull(tree: dict[str, Any], approved: str | None) -> Pull:
    head, base = _at(tree, "head", dict), _at(tree, "base", dict)
    # A fork that was deleted leaves null here; no name is no name of ours.
    head_repo = head.get("repo") or {}
    found = Pull(
        number=_at(tree, "number", int),
        head=_at(head, "sha", str),
        base=_at(base, "sha", str),
        head_repo=str(head_repo.get("full_name") or "a deleted fork"),
        base_repo=_at(_at(base, "repo", dict), "full_name", str),
        author=str((tree.get("user") or {}).get("login") or ""),
        approved=approved,
    )
    if not (_COMMIT.fullmatch(found.head) and _COMMIT.fullmatch(found.base) and _NAME.fullmatch(found.base_repo)):
        raise MalformedRecordError("the event's commits or repository are not what GitHub sends", expected="full ids")
    return found


def _load(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise MalformedRecordError(f"{path.name}: {error}", expected="a JSON object from GitHub") from error
    if not isinstance(tree, dict):
        raise MalformedRecordError(f"{path.name} holds no object", expected="a JSON object from GitHub")
    return tree


def _at(tree: dict[str, Any], name: str, kind: type[T]) -> T:
    value = tree.get(name)
    if not isinstance(value, kind):
        raise MalformedRecordError(f"the event has no {name}", expected=f"{name} as GitHub sends it")
    return value
