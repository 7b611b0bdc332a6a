"""Evidence for a fusion or a composition on one chip class: ``baselines/<chip-class>/fusions/<name>.json``.

Opinion: what a record says of itself is for reading, what it measured is for judging. It holds every block, so that
the gate can judge again, and a digest of its own content, so that an edit is found. The digest is no signature: who
recomputes it can forge a record, and only whoever measures again will notice.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from gemma3n_perf.duel import launch_record as launches
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.errors import InvalidError, MalformedRecordError
from gemma3n_perf.gate.facts import Checked
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.admitted import FOLDER
from gemma3n_perf.store.files import Disk, write_over

SCHEMA = 1
_DIGEST = "content_digest"


@dataclass(frozen=True, slots=True)
class WorkloadEvidence:
    """One workload's duel: the judgement when it was measured, over all sessions and of each, and all launches.

    ``budget_s`` seconds of measuring it was given; ``spent`` says that they held no further launch.
    """

    workload: str
    judgement: Judgement
    per_session: tuple[Judgement, ...]
    budget_s: float
    raw: tuple[Launch, ...]
    spent: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one chip class has to say of a fusion, or of a composition ``a+b``.

    ``verdict`` and ``reason`` are this class's, as the session saw them; the gate forms its own. ``enabled`` False is
    evidence that the fusion leaves the decode graph alone where it is off. ``sources`` is the SHA-256 of the fusion's
    sources, ``commit`` and ``dirty`` the checkout's, ``date`` ISO 8601. ``stacks`` are by arm.
    """

    schema: int
    fusion: str
    verdict: str
    reason: str
    enabled: bool
    sources: str
    commit: str | None
    dirty: bool | None
    date: str
    chip: Chip
    stacks: dict[str, Stack]
    checked: tuple[Checked, ...] = ()
    workloads: tuple[WorkloadEvidence, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    content_digest: str = ""


def path_of(baselines: Path, chip_class: str, fusion: str) -> Path:
    """Return where evidence is kept."""
    return baselines / chip_class / FOLDER / f"{fusion}.json"


def encode(record: Evidence) -> bytes:
    """Return the record as JSON, one pair of blocks a line, its content digest filled in."""
    built: dict[str, Any] = msgspec.to_builtins(record)
    launches.without_unknowns(_raw(built))
    # Once through JSON: the digest is of what a reader will find, where infinity is null.
    built = msgspec.json.decode(msgspec.json.encode(built))
    built[_DIGEST] = content_digest(built)
    return launches.lines(built, _raw(built))


def _raw(built: dict[str, Any]) -> list[dict[str, Any]]:
    return [launch for one in built["workloads"] for launch in one["raw"]]


def content_digest(tree: dict[str, Any]) -> str:
    """SHA-256 over the record without its digest, as JSON with sorted names; layout does not count."""
    rest = {name: value for name, value in tree.items() if name != _DIGEST}
    return hashlib.sha256(msgspec.json.encode(rest, order="sorted")).hexdigest()


def decode(data: bytes, source: str) -> Evidence:
    """Read a record. Raises MalformedRecordError for what is none, InvalidError for one that was edited."""
    try:
        tree = msgspec.json.decode(data)
        record = msgspec.json.decode(data, type=Evidence)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(source, str(error), "what pytest perf/ --fusion NAME writes") from error
    if record.schema != SCHEMA:
        raise _malformed(source, f"schema {record.schema}", f"schema {SCHEMA}")
    if content_digest(tree) != record.content_digest:
        raise InvalidError(
            f"{source}: edited after it was written: its content does not have the digest it states",
            expected="evidence as it was measured",
            remedy=f"restore it from version control, or measure again: pytest perf/ --fusion {record.fusion}",
        )
    for found, expected in _flaws(record):
        raise _malformed(source, found, expected)
    return record


def read(path: Path) -> Evidence:
    """Read a record from a file. Raises as ``decode`` does."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _malformed(str(path), error.strerror or str(error), "a record of evidence") from error
    return decode(data, str(path))


def write(baselines: Path, record: Evidence, disk: Disk | None = None) -> Path:
    """Write a record in the place of the last one, whole or not at all. Returns its path. Raises DiskFullError."""
    path, data = path_of(baselines, record.chip.chip_class, record.fusion), encode(record)
    decode(data, f"the evidence of {record.fusion}")
    write_over(path, data, disk)
    return path


def signed(record: Evidence) -> Evidence:
    """Return the record as it reads back from its file."""
    return decode(encode(replace(record, content_digest="")), f"the evidence of {record.fusion}")


_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_CLASS = re.compile(r"[a-z0-9][a-z0-9.-]*")


def _flaws(record: Evidence) -> Iterator[tuple[str, str]]:
    if sorted(record.stacks) != sorted(ARMS):
        yield f"$.stacks is of {', '.join(sorted(record.stacks)) or 'no arm'}", "both arms"
    if record.commit is not None and not _COMMIT.fullmatch(record.commit):
        yield f"$.commit is {record.commit!r}", "a commit's whole hash"
    if not _CLASS.fullmatch(record.chip.chip_class):
        yield f"$.chip.chip_class is {record.chip.chip_class!r}", "lower-case letters, digits, hyphens and dots"
    names = [one.workload for one in record.workloads]
    for name in {name for name in names if names.count(name) > 1}:
        yield f"{name} is there twice", "every workload once"
    for one in record.workloads:
        if not (math.isfinite(one.budget_s) and one.budget_s > 0):
            yield f"{one.workload}: a budget of {one.budget_s} s", "positive seconds"
        yield from launches.flaws(one.workload, one.raw)


def _malformed(source: str, found: str, expected: str) -> MalformedRecordError:
    return MalformedRecordError(
        f"{source}: {found}",
        expected=expected,
        remedy="restore it from version control, or measure again: pytest perf/ --fusion NAME",
    )
