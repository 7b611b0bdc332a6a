"""The record of one release or commit that was duelled against an anchor: ``history/<line>/<version>.json.xz``.

It keeps the blocks that its effect was computed from, hundreds a launch, hence xz. Older records are plain JSON.
"""

import datetime as dt
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.codec import Codec, Flaw, indented, usable
from gemma3n_perf.store.files import write_over
from gemma3n_perf.store.packed import SUFFIX, pack, unpack

SCHEMA = 1
RELEASES, OWN = ("mlx", "mlx-vlm"), "gemma3n-perf"
LINES = (*RELEASES, OWN)
FOLDER = "history"
_DAYS = Path(__file__).with_name("release_days.json")


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


def day(line: str, version: str) -> str | None:
    """Return the day of a release's tag in the project's own repository, ISO 8601; None where it is not known here."""
    days: dict[str, dict[str, str]] = json.loads(_DAYS.read_bytes())
    return days.get(line, {}).get(version)


def is_version(text: str) -> bool:
    """Whether a release or commit can be called so: files and tags are."""
    return re.fullmatch(r"[0-9A-Za-z](?:[._+-]?[0-9A-Za-z])*", text) is not None and not text.endswith(".lock")


def path_of(baselines: Path, chip_class: str, line: str, version: str) -> Path:
    """Return where a point is kept."""
    return baselines / chip_class / FOLDER / line / f"{version}.json{SUFFIX}"


def write(baselines: Path, one: Point) -> Path:
    """Keep a point, in place of an older one of the same version; returns its path. Raises DiskFullError."""
    path = path_of(baselines, one.chip.chip_class, one.line, one.version)
    write_over(path, pack(path, CODEC.encode(one)))
    path.with_suffix("").unlink(missing_ok=True)
    return path


def read(path: Path) -> Point:
    """Return the point in a file. Raises MalformedRecordError."""
    return CODEC.decode(unpack(CODEC, path), str(path))


def measured(path: Path) -> bool:
    """Return whether a point is kept there, or was by an older release, that has a value."""
    try:
        return read(path if path.exists() else path.with_suffix("")).effect is not None
    except PerfError:
        return False


def read_class(baselines: Path, chip_class: str) -> tuple[tuple[Point, ...], tuple[str, ...]]:
    """Return all points of a class, and what is wrong with the files that are none.

    A version that an older release left a plain record of, beside a compressed one, counts once.
    """
    faults: list[str] = []
    found: list[Point] = []
    for line in LINES:
        folder = path_of(baselines, chip_class, line, "").parent
        paths = {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob("*.json*"))}
        read_here = (usable(partial(_read, baselines, path), faults) for path in paths.values())
        found += [one for one in read_here if one is not None]
    return tuple(found), tuple(faults)


def _read(baselines: Path, path: Path) -> Point:
    one = read(path)
    place = path_of(baselines, one.chip.chip_class, one.line, one.version)
    if place not in (path, path.with_name(f"{path.name}{SUFFIX}")):
        raise CODEC.malformed(str(path), Flaw(f"is {one.line} {one.version} on {one.chip.chip_class}"))
    return one


def _flaws(one: Point) -> Iterator[Flaw]:
    if one.line not in LINES:
        yield Flaw(f"line {one.line}, where {' and '.join(LINES)} are known")
    if (one.effect is None) != (one.failure is not None):
        yield Flaw("neither a value nor a failure, or both")
    if one.effect is not None and not (one.effect > -1 and one.launches):
        yield Flaw(f"effect {one.effect} of {len(one.launches)} launches")
    if not _is_date(one.date, zoned=True) or not (one.released is None or _is_date(one.released)):
        yield Flaw(f"the dates {one.date[:40]!r} and {str(one.released)[:40]!r}", "ISO 8601, the first with its zone")
    if one.verdict not in {verdict.value for verdict in Verdict}:
        yield Flaw(f"verdict {one.verdict}")
    for launch in one.launches:
        values = (*launch.anchor_s, *launch.point_s)
        if len(launch.anchor_s) != len(launch.point_s) or not values:
            yield Flaw("a launch without pairs of blocks")
        if min(values, default=1.0) <= 0:
            yield Flaw("a block that took no time")


def _is_date(text: str, *, zoned: bool = False) -> bool:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return False
    return found.tzinfo is not None or not zoned


def _lay_out(one: Point) -> bytes:
    built = msgspec.to_builtins(one)
    for launch in built["launches"]:
        for side in ("anchor_s", "point_s"):
            launch[side] = [float(f"{value:.6g}") for value in launch[side]]
    return indented(built, 0)


CODEC = Codec(
    Point,
    schema=SCHEMA,
    expected="what gemma3n-perf history upstream writes",
    remedy="restore it from version control, or measure that version again",
    flaws=_flaws,
    lay_out=_lay_out,
)
