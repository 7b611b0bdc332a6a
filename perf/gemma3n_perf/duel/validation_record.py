"""Duels whose truth was planted: ``baselines/<class>/power.jsonl.xz``, a head and a duel a line, every block kept.

A campaign takes hours, so each round is on disk before the next begins, and an interrupted campaign goes on. Of a round
all duels are kept or none: one that was cut short has its open duels too, for to count those alone that ended early
would flatter every rule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import msgspec

from gemma3n_perf.errors import NotComparableError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.store.files import write_over
from gemma3n_perf.store.packed import pack, unpack

SCHEMA = 1
NAME = "power.jsonl.xz"
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

    ``truth`` is its effect on throughput; the rest is what the judge said at the time. Duels of one ``round`` went
    through the same launches. ``arm`` is what both arms were made of, plants aside.
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
    cautions: tuple[str, ...] = ()

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
    if not path.exists():
        return None
    head, *duels = unpack(_HEAD, path).splitlines() or [b""]
    return PowerRecord(
        _HEAD.decode(head, f"{path}: line 1"),
        tuple(_DUEL.decode(line, f"{path}: line {number}") for number, line in enumerate(duels, start=2)),
    )


def append(path: Path, head: PowerHead, duels: Sequence[PowerDuel]) -> PowerRecord:
    """Add duels to a campaign, whole or not at all, beginning it where there is none; returns all of it. They take the
    place of what is there of the same rounds.

    Raises NotComparableError for a campaign of another chip, workload or software, MalformedRecordError, DiskFullError.
    """
    known = require_same(path, head)
    rounds = {duel.round for duel in duels}
    others = (duel for duel in (known.duels if known else ()) if duel.round not in rounds)
    record = PowerRecord(known.head if known else head, (*others, *duels))
    lines = [msgspec.json.encode(record.head), *(_line(duel) for duel in record.duels)]
    data = b"".join(line + b"\n" for line in lines)
    write_over(path, pack(path, data))
    return record


def _line(duel: PowerDuel) -> bytes:
    tree = msgspec.to_builtins(duel)
    if duel.arm == HERE:
        del tree["arm"]
    if not duel.cautions:
        del tree["cautions"]
    return msgspec.json.encode(tree)


def newest_round(record: PowerRecord | None) -> list[PowerDuel]:
    """Return the duels of a campaign's newest round, none where there is none."""
    duels = record.duels if record else ()
    number = max((duel.round for duel in duels), default=0)
    return [duel for duel in duels if duel.round == number]


def require_same(path: Path, head: PowerHead) -> PowerRecord | None:
    """Return the campaign in a file if duels with this head may be added to it, None where there is no file.

    Raises NotComparableError for a campaign of another chip, workload or software, MalformedRecordError.
    """
    known = read(path)
    here, there = _common(head), _common(known.head) if known else {}
    for what in there:
        if here[what] != there[what]:
            raise NotComparableError(
                f"{path} holds duels of {what} {there[what]}; this is {here[what]}",
                expected="one campaign of one machine, workload and software",
                remedy="move the file away to begin another campaign",
            )
    return known


def _common(head: PowerHead) -> dict[str, str | None]:
    """Return what all duels of a campaign must share, by what it is called in messages."""
    stack = head.stack
    return {
        "chip class": head.chip.chip_class,
        "workload": head.workload,
        "mlx": stack.mlx,
        "mlx vlm": stack.mlx_vlm,
    }


def _flaws(duel: PowerDuel) -> Iterator[Flaw]:
    times = (
        time
        for launch in duel.launches
        for block in (launch.baseline_s, launch.candidate_s, *chain(*launch.steps_s))
        for time in block
    )
    if not duel.launches or not all(0 < time < float("inf") for time in times):
        yield Flaw("a duel without launches, or with times that are not positive")


_EXPECTED = "what gemma3n-perf validate writes"
_REMEDY = "restore it from version control, or move it away and begin again"
_HEAD = Codec(PowerHead, SCHEMA, _EXPECTED, _REMEDY)
_DUEL = Codec(PowerDuel, None, _EXPECTED, _REMEDY, flaws=_flaws)
