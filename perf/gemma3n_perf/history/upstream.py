"""What releases of mlx and mlx-vlm do to decode: each duelled against what is installed here, never timed alone.

Opinion: on a machine that drifts by a tenth within minutes a release measured in June and one measured in July have
nothing to say to each other. So every point is a ratio to one anchor, taken in interleaved blocks, and the series is
made of ratios. A release that cannot be built or loaded is a point too: without a value, with its reason.

Kept in ``baselines/<class>/history/<line>/<version>.json``, one file a point, with the blocks it was computed from.
"""

import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.history.asv_files import Value
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from gemma3n_perf.store.files import Disk, write_over

SCHEMA = 1
LINES = ("mlx", "mlx-vlm")
FOLDER = "history"
_ADDRESS, _FOLDER = re.compile(r"https?://[^\s)\]`,]+"), re.compile(r"(?<![\w.:/])(?:/[\w.+~-]+){2,}")


@dataclass(frozen=True, slots=True)
class Blocks:
    """One launch: seconds per token of every block that counts, in pairs, by the anchor and by the point."""

    seconds: float
    steps: int
    anchor_s: tuple[float, ...]
    point_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One release or commit against the anchor. ``effect`` is its throughput over the anchor's, less 1, with a 95 %
    interval; all None where ``failure`` says why there is none. ``version`` is a release or a commit of ``line``."""

    schema: int
    date: str
    chip: Chip
    line: str
    version: str
    workload: str
    anchor: Stack
    stack: Stack | None
    budget_s: float
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    launches: tuple[Blocks, ...] = ()
    failure: str | None = None
    released: str | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """A point of a series: its version and its value in seconds per token, anchored to today's."""

    version: str
    value: Value
    point: Point


def point(
    line: str, version: str, workload: str, *, chip: Chip, anchor: Stack, budget_s: float, date: str,
    found: Judgement, fought: ComparisonState | None, released: str | None = None,
) -> Point:  # fmt: skip
    """Lay out what a duel of a release (candidate) against the anchor (baseline) found."""
    measured = fought is not None and bool(fought.launches) and found.effect is not None
    launches = tuple(
        Blocks(one.seconds, one.steps, one.tpot_s("baseline"), one.tpot_s("candidate"))
        for one in (fought.launches if fought else ())
    )
    stack = fought.sides["candidate"].stack if fought and fought.sides else None
    return Point(
        SCHEMA, date, chip, line, version, workload, anchor, stack, budget_s, found.verdict.value,
        found.effect if measured else None, _finite(found.low) if measured else None,
        _finite(found.high) if measured else None, launches, None if measured else without_places(found.reason),
        released,
    )  # fmt: skip


def without_places(text: str) -> str:
    """Return an error's words without what is only true of one machine: folders, and addresses of an index."""
    return _FOLDER.sub(lambda match: match[0].rsplit("/", 1)[1], _ADDRESS.sub("(an address)", text))


def path_of(baselines: Path, chip_class: str, line: str, version: str) -> Path:
    """Return where a point is kept."""
    return baselines / chip_class / FOLDER / line / f"{version}.json"


def write(baselines: Path, one: Point, disk: Disk | None = None) -> Path:
    """Keep a point, in place of an older one of the same version; returns its path. Raises DiskFullError."""
    path = path_of(baselines, one.chip.chip_class, one.line, one.version)
    built = msgspec.to_builtins(one)
    for launch in built["launches"]:
        for side in ("anchor_s", "point_s"):
            launch[side] = [float(f"{value:.6g}") for value in launch[side]]
    data = msgspec.json.encode(built)
    decode(data, "this point")
    write_over(path, msgspec.json.format(data, indent=0) + b"\n", disk)
    return path


def decode(data: bytes, source: str) -> Point:
    """Read a point. Raises MalformedRecordError naming ``source``."""
    try:
        one = msgspec.json.decode(data, type=Point)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(source, str(error)) from error
    for fault in _faults(one):
        raise _malformed(source, fault)
    return one


def read_class(baselines: Path, chip_class: str) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """Return all points of a class, and what is wrong with the files that are none."""
    found, faults = [], []
    for line in LINES:
        for path in sorted((baselines / chip_class / FOLDER / line).glob("*.json")):
            try:
                one = decode(path.read_bytes(), str(path))
                if (one.chip.chip_class, one.line, one.version) != (chip_class, line, path.stem):
                    raise _malformed(str(path), f"is {one.line} {one.version} on {one.chip.chip_class}")
                found.append(one)
            except (MalformedRecordError, OSError) as error:
                faults.append(error.found if isinstance(error, MalformedRecordError) else f"{path}: {error}")
    return tuple(found), tuple(faults)


def placed(points: Sequence[Point], order: Mapping[str, int]) -> dict[tuple[str, str], tuple[Placed, ...]]:
    """Return series by (line, workload), in the order of ``order`` (place by version).

    Times are the newest anchor's median time per token over all its launches, divided by each ratio. A point against
    an older anchor is chained through the older anchor's own point; where there is none, it is left out.
    """
    made: dict[tuple[str, str], list[Placed]] = {}
    for line, workload in {(one.line, one.workload) for one in points}:
        listed = [one for one in points if (one.line, one.workload) == (line, workload)]
        newest = max(listed, key=lambda one: one.date).anchor
        anchor_s = statistics.median(
            value for one in points if one.workload == workload and _same(one.anchor, newest)
            for launch in one.launches for value in launch.anchor_s
        ) if any(one.launches and _same(one.anchor, newest) for one in points) else None  # fmt: skip
        for one in listed:
            factor = _chain(one, newest, points)
            if factor is None or anchor_s is None:
                continue
            made.setdefault((line, workload), []).append(Placed(one.version, _value(one, anchor_s / factor), one))
    return {
        key: tuple(sorted(listed, key=lambda one: order.get(one.version, len(order)))) for key, listed in made.items()
    }


def order(points: Sequence[Point]) -> dict[str, int]:
    """Return the place of every version: releases by number, commits by their day."""
    listed = sorted({(version_key(one.version), one.released or "", one.version) for one in points})
    return {version: place for place, (_, _, version) in enumerate(listed)}


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Order releases: 0.9.1 before 0.10.0."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in version.split("."))


def _value(one: Point, anchor_s: float) -> Value:
    if one.effect is None:
        return Value(None)
    ratios = [statistics.median(one.point_s) / statistics.median(one.anchor_s) for one in one.launches]
    low = anchor_s / (1 + one.high) if one.high is not None else -math.inf
    high = anchor_s / (1 + one.low) if one.low is not None and one.low > -1 else math.inf
    return Value(anchor_s / (1 + one.effect), tuple(anchor_s * ratio for ratio in ratios), low, high)


def _same(one: Stack, other: Stack) -> bool:
    return (one.mlx, one.mlx_vlm, one.backend) == (other.mlx, other.mlx_vlm, other.backend)


def _chain(one: Point, newest: Stack, points: Sequence[Point]) -> float | None:
    """Return the older anchor's throughput over the newest's: 1 where they are one, None where nothing links them."""
    if _same(one.anchor, newest):
        return 1.0
    for link in points:
        linked = link.stack is not None and _same(link.stack, one.anchor) and _same(link.anchor, newest)
        if linked and link.effect is not None and link.workload == one.workload:
            return 1 + link.effect
    return None


def _faults(one: Point) -> Iterator[str]:
    if one.schema != SCHEMA:
        yield f"schema {one.schema}, where {SCHEMA} is known"
    if one.line not in LINES:
        yield f"line {one.line}, where {' and '.join(LINES)} are known"
    if (one.effect is None) != (one.failure is not None):
        yield "neither a value nor a failure, or both"
    if one.effect is not None and not (math.isfinite(one.effect) and one.effect > -1 and one.launches):
        yield f"effect {one.effect} of {len(one.launches)} launches"
    if one.verdict not in {verdict.value for verdict in Verdict}:
        yield f"verdict {one.verdict}"
    for launch in one.launches:
        values = (*launch.anchor_s, *launch.point_s)
        if len(launch.anchor_s) != len(launch.point_s) or not values:
            yield "a launch without pairs of blocks"
        if not all(math.isfinite(value) and value > 0 for value in values):
            yield "a block that took no time"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _malformed(source: str, found: str) -> MalformedRecordError:
    return MalformedRecordError(
        f"{source}: {found}",
        expected="what gemma3n-perf history upstream writes",
        remedy="restore it from version control, or measure that version again",
    )
