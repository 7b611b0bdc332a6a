"""The record of a duel: verdict, arms, stacks, and every block with its conditions, so that it can be judged again."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gemma3n_perf.duel import launch_record as launches
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.files import Disk, write_over

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class WorkloadDuel:
    """One workload of a duel. ``raw`` are its launches, as measured; ``token_digests`` by arm."""

    workload: str
    judgement: Judgement
    raw: tuple[Launch, ...]
    budget_spent: bool
    checkpoint_digest: str | None = None
    token_digests: dict[str, str] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DuelRecord:
    """One duel. ``arms``, ``stacks`` and ``planted`` are by arm, ``baseline`` and ``candidate``.

    ``workload`` to ``launches`` repeat the judgement of the workload that decides the exit code; effects are fractions
    of throughput, times seconds. ``date`` is ISO 8601.
    """

    schema: int
    date: str
    chip: Chip
    arms: dict[str, str]
    stacks: dict[str, Stack]
    planted: dict[str, float]
    aa: bool
    policy: Policy
    budget_s: float
    sessions: int
    workload: str
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    measured_s: float
    launches: int
    duels: tuple[WorkloadDuel, ...]


def encode(record: DuelRecord) -> bytes:
    """Return the record as JSON, one block a line; what the platform did not tell is left out of the conditions."""
    built: dict[str, Any] = msgspec.to_builtins(record)
    raw = [launch for duel in built["duels"] for launch in duel["raw"]]
    launches.without_unknowns(raw)
    return launches.lines(built, raw)


def decode(data: bytes, source: str) -> DuelRecord:
    """Read a record. Raises MalformedRecordError naming ``source``, the place and the fault."""
    try:
        record = msgspec.json.decode(data, type=DuelRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(source, str(error), "a duel's record") from error
    for found, expected in _flaws(record):
        raise _malformed(source, found, expected)
    return record


def write(path: Path, record: DuelRecord, disk: Disk | None = None) -> None:
    """Write the record whole or not at all. Raises DiskFullError, and MalformedRecordError for what cannot be read."""
    data = encode(record)
    decode(data, "this duel")
    write_over(path, data, disk)


def read(path: Path) -> DuelRecord:
    """Read a record from a file. Raises MalformedRecordError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _malformed(str(path), error.strerror or str(error), "a duel's record") from error
    return decode(data, str(path))


def _flaws(record: DuelRecord) -> Iterator[tuple[str, str]]:
    if record.schema != SCHEMA:
        yield f"schema {record.schema}", f"schema {SCHEMA}"
    for name in ("arms", "planted"):
        if sorted(getattr(record, name)) != list(ARMS):
            yield f"$.{name} is of {', '.join(sorted(getattr(record, name))) or 'no arm'}", "both arms"
    if not record.duels:
        yield "no workload", "one or more"
    for duel in record.duels:
        yield from launches.flaws(duel.workload, duel.raw)


def _malformed(source: str, found: str, expected: str) -> MalformedRecordError:
    return MalformedRecordError(
        f"{source}: {found}",
        expected=expected,
        remedy="restore the file from version control, or duel again; it is left untouched",
    )
