"""What releases and commits do to decode: each duelled against one anchor, never timed alone.

Releases of mlx and mlx-vlm meet what is installed here, commits of this repository meet one commit of it. On a machine
that drifts by a tenth within minutes times of two days do not compare. So every point is a ratio to one anchor, taken
in interleaved blocks. A release that cannot be built or loaded is a point too: without a value, with its reason.

asv knows only commits, so releases get a git repository: one branch a line, one empty commit a release, everything in
it fixed by the release itself. So the hashes are the same on every machine, and the site needs no clone.
"""

import datetime as dt
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from gemma3n_perf.bench.comparison import same_mlx
from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.history.asv_files import machine_axes
from gemma3n_perf.history.point_record import OWN, Point, read_class
from gemma3n_perf.history.results import ResultFile, Value

_EPOCH = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
_WHO = ("-c", "user.name=upstream", "-c", "user.email=upstream@localhost")


Placed = dict[tuple[str, str], tuple[tuple[Point, Value], ...]]
"""Series of releases, by line and workload: points, each with its value in seconds per token, anchored to today's."""

Lines = Mapping[str, Placed]
"""By chip class."""

Anchored = Mapping[tuple[str, str], Mapping[str, tuple[Point, Value]]]
"""Commits of this repository that were duelled against an anchor commit, by chip class and workload."""


def read_lines(baselines: Path, classes: Sequence[str]) -> tuple[Lines, list[str]]:
    """Return the placed releases of every class, and what was left out of them."""
    lines: dict[str, Placed] = {}
    notes: list[str] = []
    for chip_class in classes:
        listed, faults = read_class(baselines, chip_class)
        points = [one for one in listed if one.line != OWN]
        found = placed(points)
        shown = [point for series in found.values() for point, _ in series]
        missing = [f"{one.line} {one.version} on {chip_class}" for one in points if one not in shown]
        notes += [*faults, *(f"{one}: nothing links it to today's" for one in missing)]
        if found:
            lines[chip_class] = found
    return lines, notes


def placed(points: Sequence[Point]) -> Placed:
    """Return series by (line, workload): releases by number, commits by their day.

    Times are the newest anchor's median time per token over all its launches, divided by each ratio. A point against
    an older anchor is chained through the older anchor's own point; where there is none, it is left out.
    """
    made: Placed = {}
    ordered = sorted(points, key=lambda one: (version_key(one.version), one.released or "", one.version))
    for line, workload in {(one.line, one.workload) for one in points}:
        listed = [one for one in ordered if (one.line, one.workload) == (line, workload)]
        newest = max(listed, key=lambda one: one.date).anchor
        times = [
            value for one in points if one.workload == workload and same_mlx(one.anchor, newest)
            for launch in one.launches for value in launch.anchor_s
        ]  # fmt: skip
        linked = [(one, factor) for one in listed if (factor := _chain(one, newest, points)) is not None]
        if times and linked:
            anchor_s = statistics.median(times)
            made[line, workload] = tuple((one, _value(one, anchor_s / factor)) for one, factor in linked)
    return made


def by_line(lines: Lines) -> dict[str, Lines]:
    """Return the releases of each line by themselves."""
    made: dict[str, dict[str, Placed]] = {}
    for chip_class, placed_there in lines.items():
        for where, points in placed_there.items():
            made.setdefault(where[0], {}).setdefault(chip_class, {})[where] = points
    return dict(sorted(made.items()))


def read_anchored(baselines: Path, classes: Sequence[str]) -> tuple[Anchored, list[str]]:
    """Return the commits of every class that have a point, and what was left out: points of another anchor.

    Times are the anchor's median time per token over the launches of the newest point's stack, divided by each ratio.
    """
    made: dict[tuple[str, str], dict[str, tuple[Point, Value]]] = {}
    notes: list[str] = []
    for chip_class in classes:
        points = [one for one in read_class(baselines, chip_class)[0] if one.line == OWN]
        for workload in {one.workload for one in points}:
            own = sorted((one for one in points if one.workload == workload), key=lambda one: one.date)
            anchor = own[-1].anchor
            kept = [one for one in own if one.anchor.commit == anchor.commit]
            others = [f"{one.version[:12]} on {chip_class}" for one in own if one not in kept]
            notes += [f"{one}: its anchor is another than the newest's" for one in others]
            launches = (launch for one in kept if same_mlx(one.anchor, anchor) for launch in one.launches)
            times = [value for launch in launches for value in launch.anchor_s]
            if times:
                anchor_s = statistics.median(times)
                made[chip_class, workload] = {one.version: (one, _value(one, anchor_s)) for one in kept}
    return made, notes


def release_results(
    lines: Lines, repo: Path, run: Run
) -> tuple[tuple[ResultFile, ...], list[dict[str, str]], list[str]]:
    """Make a repository of releases in ``repo``; returns their results, machines, branches. Raises NotMeasuredError."""
    listed = [one for by_line in lines.values() for series in by_line.values() for one in series]
    releases: dict[str, dict[str, str | None]] = {}
    for point in sorted((point for point, _ in listed), key=lambda one: (one.line, version_key(one.version))):
        releases.setdefault(point.line, {})[point.version] = point.released
    made = build(repo, releases, run)
    machines = {point.chip.chip_class: machine_axes(point.chip) for point, _ in listed}
    files: dict[tuple[str, str], ResultFile] = {}
    for point, value in listed:
        chip_class, (commit, date) = point.chip.chip_class, made[point.line, point.version]
        fresh = ResultFile(chip_class, commit, date, machines[chip_class], {})
        files.setdefault((chip_class, commit), fresh).times[point.workload] = value
    return tuple(files.values()), list(machines.values()), list(releases)


def build(
    path: Path, lines: Mapping[str, Mapping[str, str | None]], run: Run
) -> dict[tuple[str, str], tuple[str, int]]:
    """Make a bare repository with a branch for each line; returns (commit, date in ms) by (line, version).

    ``lines`` are the days of versions, in order, ISO 8601 or None. Raises NotMeasuredError where git fails.
    """

    def git(*argv: str, root: Path = path, environ: Mapping[str, str] | None = None) -> str:
        done = Repository(root, run).git(*argv, environ=environ)
        return done.checked(NotMeasuredError, "git failed", expected="git 2.28 or later, and room on the disk").strip()

    path.parent.mkdir(parents=True, exist_ok=True)
    git("init", "--quiet", "--bare", path.name, root=path.parent)
    tree = git("hash-object", "-w", "-t", "tree", "/dev/null")
    made: dict[tuple[str, str], tuple[str, int]] = {}
    for line, releases in lines.items():
        parents, stamp = tuple[str, ...](), int(_EPOCH.timestamp())
        for version, released in releases.items():
            # Order comes from parents; a day that is unknown or runs backwards becomes the next second.
            day_s = dt.datetime.fromisoformat(released).replace(tzinfo=dt.UTC).timestamp() if released else 0
            stamp = max(stamp + 1, int(day_s))
            dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{stamp} +0000")
            commit = git(*_WHO, "commit-tree", tree, *parents, "-m", f"{line} {version}", environ=dates)
            made[line, version] = commit, stamp * 1000
            git("update-ref", f"refs/tags/{line}-{version}", commit)
            git("update-ref", f"refs/heads/{line}", commit)
            parents = ("-p", commit)
    git("symbolic-ref", "HEAD", f"refs/heads/{next(iter(lines))}")
    return made


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Order releases: 0.9.1 before 0.10.0."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in version.split("."))


def _value(one: Point, anchor_s: float) -> Value:
    if one.effect is None:
        return Value(None)
    ratios = [statistics.median(one.point_s) / statistics.median(one.anchor_s) for one in one.launches]
    low = anchor_s / (1 + one.high) if one.high is not None else -math.inf
    high = anchor_s / (1 + one.low) if one.low is not None and one.low > -1 else math.inf
    return Value(anchor_s / (1 + one.effect), tuple(anchor_s * ratio for ratio in ratios), low, high)


def _chain(one: Point, newest: Stack, points: Sequence[Point]) -> float | None:
    """Return the older anchor's throughput over the newest's: 1 where they are one, None where nothing links them."""
    if same_mlx(one.anchor, newest):
        return 1.0
    links = (link for link in points if link.workload == one.workload and same_mlx(link.anchor, newest))
    linked = (link.effect for link in links if link.stack is not None and same_mlx(link.stack, one.anchor))
    return next((1 + effect for effect in linked if effect is not None), None)
