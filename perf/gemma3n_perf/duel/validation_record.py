"""Duels whose truth was planted: ``baselines/<class>/power.jsonl``, a head and then one duel a line, every block kept.

Opinion: a campaign takes hours, so each round is on disk before the next begins, and a campaign that was cut off goes
on. A round is kept whole or not at all: what a cut-off one leaves are the duels that ended early, and to count those
alone would flatter every rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.errors import MalformedRecordError, NotComparableError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.store.files import Disk, write_over

SCHEMA = 1
NAME = "power.jsonl"
HERE = "here"
"""The arm of a duel that says nothing else: this tree in this environment."""


@dataclass(frozen=True, slots=True)
class PowerHead:
    """What all duels of the file have in common: ``schema``, chip, workload and software (commits aside)."""

    schema: int
    chip: Chip
    workload: str
    stack: Stack


class PowerLaunch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One launch: seconds of measuring, and seconds per token of each arm's blocks that count, in order.

    ``steps_s`` are seconds of each step that counts, (arms, blocks, steps), where there are several to a block.
    """

    seconds: float
    baseline_s: tuple[float, ...]
    candidate_s: tuple[float, ...]
    steps_s: tuple[tuple[tuple[float, ...], ...], ...] = ()


@dataclass(frozen=True, slots=True)
class PowerDuel:
    """One duel. ``planted`` is the time added to the candidate's blocks, as a fraction (negative: to the baseline's).

    ``truth`` is the effect that this is on throughput; the rest is what the judge said at the time. ``round`` tells
    duels apart that went through the same launches. ``arm`` is what both arms were made of, plants aside.
    """

    date: str
    commit: str | None
    round: int
    planted: float
    truth: float
    budget_s: float
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    launches: tuple[PowerLaunch, ...]
    arm: str = HERE

    @property
    def measured_s(self) -> float:
        """Seconds of measuring."""
        return sum(launch.seconds for launch in self.launches)


@dataclass(frozen=True, slots=True)
class PowerRecord:
    """A campaign: its head and its duels, oldest first."""

    head: PowerHead
    duels: tuple[PowerDuel, ...]


def power_path(baselines: Path, chip_class: str) -> Path:
    """Return where the campaign of a class is kept."""
    return baselines / chip_class / NAME


def read(path: Path) -> PowerRecord | None:
    """Return the campaign in a file, None where there is no file. Raises MalformedRecordError naming the line."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _malformed(path, error.strerror or str(error)) from error
    number = 1
    try:
        head = msgspec.json.decode(lines[0] if lines else b"", type=PowerHead)
        decoder = msgspec.json.Decoder(PowerDuel)
        duels = []
        for number, line in enumerate(lines[1:], start=2):  # noqa: B007 (told where a line does not parse)
            duels.append(decoder.decode(line))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(path, f"line {number}: {error}") from error
    if head.schema != SCHEMA:
        raise _malformed(path, f"schema {head.schema}, where {SCHEMA} is known")
    for number, duel in enumerate(duels, start=2):
        times = [time for launch in duel.launches for time in _times(launch)]
        if not duel.launches or not all(0 < time < float("inf") for time in times):
            raise _malformed(path, f"line {number}: a duel without launches, or with times that are not positive")
    return PowerRecord(head, tuple(duels))


def append(path: Path, head: PowerHead, duels: Sequence[PowerDuel], disk: Disk | None = None) -> PowerRecord:
    """Add duels to a campaign, whole or not at all, beginning it where there is none; returns all of it.

    Raises NotComparableError for a campaign of another chip, workload or software, MalformedRecordError, DiskFullError.
    """
    known = require_same(path, head)
    record = PowerRecord(known.head if known else head, (*(known.duels if known else ()), *duels))
    lines = [msgspec.json.encode(record.head), *(_line(duel) for duel in record.duels)]
    write_over(path, b"".join(line + b"\n" for line in lines), disk)
    return record


def _line(duel: PowerDuel) -> bytes:
    tree = msgspec.to_builtins(duel)
    if duel.arm == HERE:
        del tree["arm"]
    return msgspec.json.encode(tree)


def require_same(path: Path, head: PowerHead) -> PowerRecord | None:
    """Return the campaign in a file if duels with this head may be added to it, None where there is no file.

    Raises NotComparableError for a campaign of another chip, workload or software, MalformedRecordError.
    """
    known = read(path)
    if known is None:
        return None
    for what in ("chip_class", "workload", "mlx", "mlx_vlm"):
        here, there = (
            getattr(one.chip, what) if what == "chip_class" else getattr(one, what, None) or getattr(one.stack, what)
            for one in (head, known.head)
        )
        if here != there:
            raise NotComparableError(
                f"{path} holds duels of {what.replace('_', ' ')} {there}; this is {here}",
                expected="one campaign of one machine, workload and software",
                remedy="move the file away to begin another campaign",
            )
    return known


def _times(launch: PowerLaunch) -> Iterator[float]:
    yield from (*launch.baseline_s, *launch.candidate_s)
    yield from (time for arm in launch.steps_s for block in arm for time in block)


def _malformed(path: Path, found: str) -> MalformedRecordError:
    return MalformedRecordError(
        f"{path}: {found}",
        expected="what gemma3n-perf validate writes",
        remedy="restore it from version control, or move it away and begin again",
    )
