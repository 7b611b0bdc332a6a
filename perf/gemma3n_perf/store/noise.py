"""The noise floor of a chip class: ``baselines/<class>/noise.json``, with the launches it was computed from."""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gemma3n_perf.errors import NotComparableError, UsageError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.spread import NoiseFloor, noise_floor
from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.store.files import Disk

SCHEMA = 1
_MOST_LOG_RATIO = 10.0  # of one program with itself; squares of larger ones overflow
NAME = "noise.json"


@dataclass(frozen=True, slots=True)
class AaDuel:
    """One A/A duel: its workload, and the log throughput ratio and the measuring seconds of every launch."""

    workload: str
    log_ratios: tuple[float, ...]
    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NoiseRecord:
    """A calibration. ``date`` is ISO 8601; ``floor`` follows from ``duels``, and is checked against them."""

    schema: int
    date: str
    chip: Chip
    stack: Stack
    floor: NoiseFloor
    duels: tuple[AaDuel, ...]
    cautions: tuple[str, ...] = ()


def aa_duel(workload: str, launches: Sequence[LaunchEstimate]) -> AaDuel:
    """Keep what a calibration needs of the launches of one A/A duel."""
    return AaDuel(workload, tuple(one.log_ratio for one in launches), tuple(one.seconds for one in launches))


def calibration(
    duels: Sequence[AaDuel], date: str, chip: Chip, stack: Stack, cautions: tuple[str, ...] = ()
) -> NoiseRecord:
    """Make a calibration of A/A duels; ``date`` is ISO 8601. Raises UsageError for too few of them."""
    floor = _floor(duels, dt.datetime.fromisoformat(date).date())
    return NoiseRecord(SCHEMA, date, chip, stack, floor, tuple(duels), cautions)


def _floor(duels: Sequence[AaDuel], measured_on: dt.date) -> NoiseFloor:
    return noise_floor([duel.log_ratios for duel in duels], measured_on)


def write(baselines: Path, record: NoiseRecord, disk: Disk | None = None) -> Path:
    """Store a calibration in place of the last one, whole or not at all; returns its path. Raises DiskFullError."""
    return _CODEC.write(baselines / record.chip.chip_class / NAME, record, disk)


def read(baselines: Path, chip_class: str) -> NoiseRecord | None:
    """Return the calibration of a class, or None. Raises MalformedRecordError, NotComparableError."""
    path = baselines / chip_class / NAME
    record = _CODEC.find(path)
    if record is not None and record.chip.chip_class != chip_class:
        raise NotComparableError(
            f"{path} is the noise of {record.chip.chip_class}",
            expected=f"a calibration of {chip_class}",
            remedy="gemma3n-perf calibrate",
        )
    # By today's rule: an older one may have found a floor where the duels do not differ.
    return record and replace(record, floor=_floor(record.duels, record.floor.measured_on))


def _flaws(record: NoiseRecord) -> Iterator[Flaw]:
    if most := [one for duel in record.duels for one in duel.log_ratios if not abs(one) < _MOST_LOG_RATIO]:
        yield Flaw(f"an effect of {most[0]:g} of one program", f"a log ratio below {_MOST_LOG_RATIO:g}")
        return
    try:
        again = _floor(record.duels, record.floor.measured_on)
    except UsageError as error:
        yield Flaw(error.found)
        return
    apart = max(abs(again.launch_sd - record.floor.launch_sd), abs(again.largest - record.floor.largest))
    if not apart <= 1e-6:
        yield Flaw("its floor is not what its duels give")


_CODEC = Codec(
    NoiseRecord,
    SCHEMA,
    "what gemma3n-perf calibrate writes",
    "restore it from version control, or move it away and calibrate again",
    flaws=_flaws,
)
