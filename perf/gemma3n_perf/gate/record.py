"""Evidence for a fusion or a composition on one chip class: ``baselines/<chip-class>/fusions/<name>.json``.

What a record says of itself is for reading, what it measured is for judging. It holds every block, so that the gate can
judge again, and a digest of its own content, so that an edit is found. The digest is no signature: who recomputes it
can forge a record, and only whoever measures again will notice.
"""

import hashlib
import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.record import RENAMED, compact, launch_flaws, lines, unfolded
from gemma3n_perf.errors import InvalidError, MalformedRecordError
from gemma3n_perf.gate.facts import Checked
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Judgement, finite
from gemma3n_perf.store.admitted import FOLDER, Grounds, Shown
from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.store.files import Disk, write_over
from gemma3n_perf.store.packed import SUFFIX, pack, unpack

SCHEMA = 1
EARLIER = "earlier"
_DIGEST = "content_digest"
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_CLASS = re.compile(r"[a-z0-9][a-z0-9.-]*")
_FUSION = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)


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
    ``attempts`` counts the sessions that measured these sources here, this one included.
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
    notes: tuple[str, ...] = ()
    content_digest: str = ""
    attempts: int = 1


def path_of(baselines: Path, chip_class: str, fusion: str) -> Path:
    """Return where evidence is kept."""
    return baselines / chip_class / FOLDER / f"{fusion}.json"


def encode(record: Evidence) -> bytes:
    """Return the record as JSON, one pair of blocks a line, its content digest filled in."""
    # Once through JSON: the digest is of what a reader will find, where infinity is null.
    tree = msgspec.json.decode(msgspec.json.encode(compact(record)))
    tree[_DIGEST] = content_digest(tree)
    return lines(tree)


def content_digest(tree: dict[str, Any]) -> str:
    """SHA-256 over the record without its digest, as JSON with sorted names; layout does not count."""
    content = {name: value for name, value in tree.items() if name != _DIGEST}
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def decode(data: bytes, source: str) -> Evidence:
    """Read a record. Raises MalformedRecordError for what is none, InvalidError for one that was edited."""
    record = _CODEC.typed(data, source)
    if content_digest(msgspec.json.decode(data)) != record.content_digest:
        raise InvalidError(
            f"{source}: edited after it was written: its content does not have the digest it states",
            expected="evidence as it was measured",
            remedy=f"restore it from version control, or measure again: pytest perf/ --fusion {record.fusion}",
        )
    return _CODEC.checked(record, source)


def read(path: Path) -> Evidence:
    """Read a record from a file, one in ``earlier/`` too. Raises as ``decode`` does."""
    return decode(unpack(_CODEC, path) if path.suffix == SUFFIX else _CODEC.bytes_of(path), str(path))


def write(baselines: Path, record: Evidence, disk: Disk | None = None) -> Path:
    """Write a record in the place of the last one, whole or not at all. Returns its path. Raises DiskFullError."""
    path = path_of(baselines, record.chip.chip_class, record.fusion)
    data = encode(record)
    decode(data, f"the evidence of {record.fusion}")
    write_over(path, data, disk)
    return path


def attempt(baselines: Path, chip_class: str, fusion: str, sources: str, disk: Disk | None = None) -> int:
    """Make way for another session's record; returns which attempt of these ``sources`` that is. Raises DiskFullError.

    What was measured before is kept in ``earlier/``, of other sources too: who measures until it passes is seen. So is
    a file that cannot be read. A record without launches has nothing to keep.
    """
    path, count, kept = path_of(baselines, chip_class, fusion), 1, True
    if not path.is_file():
        return count
    with suppress(InvalidError, MalformedRecordError):
        before = read(path)
        kept = any(one.raw for one in before.workloads)
        count = before.attempts + kept if before.sources == sources else 1
    if kept:
        earlier = path.parent / EARLIER
        # Releases up to 0.2 kept them as they were.
        taken = {one.name.removesuffix(SUFFIX) for one in earlier.glob("*.json*")}
        name = next(name for n in itertools.count(1) if (name := f"{fusion}.{n}.json") not in taken)
        place = earlier / f"{name}{SUFFIX}"
        write_over(place, pack(place, path.read_bytes()), disk)
    return count


def grounds(record: Evidence) -> Grounds:
    """Return a record in short: what each of its workloads showed."""
    shown = tuple(
        Shown(one.workload, one.judgement.effect, finite(one.judgement.low), finite(one.judgement.high))
        for one in record.workloads
    )
    return Grounds(record.commit, record.date, record.content_digest, shown)


def _flaws(record: Evidence) -> Iterator[Flaw]:
    if sorted(record.stacks) != sorted(ARMS):
        yield Flaw(f"$.stacks is of {', '.join(sorted(record.stacks)) or 'no arm'}", "both arms")
    if record.commit is not None and not _COMMIT.fullmatch(record.commit):
        yield Flaw(f"$.commit is {record.commit!r}", "a commit's whole hash")
    if not _CLASS.fullmatch(record.chip.chip_class):
        yield Flaw(f"$.chip.chip_class is {record.chip.chip_class!r}", "lower-case letters, digits, hyphens and dots")
    if not _FUSION.fullmatch(record.fusion):
        yield Flaw(f"$.fusion is {record.fusion[:40]!r}", "the name of a fusion, or several joined by +")
    if record.attempts < 1:
        yield Flaw(f"$.attempts is {record.attempts}", "1 or more")
    names = [one.workload for one in record.workloads]
    for name in {name for name in names if names.count(name) > 1}:
        yield Flaw(f"{name} is there twice", "every workload once")
    for one in record.workloads:
        if not 0 < one.budget_s < float("inf"):
            yield Flaw(f"{one.workload}: a budget of {one.budget_s} s", "positive seconds")
        yield from launch_flaws(one.workload, one.raw)


_CODEC = Codec(
    Evidence,
    SCHEMA,
    "what pytest perf/ --fusion NAME writes",
    "restore it from version control, or measure again: pytest perf/ --fusion NAME",
    flaws=_flaws,
    renamed=RENAMED,
    unfold=unfolded,
)
