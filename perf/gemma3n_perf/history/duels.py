"""Duels of releases and of commits, each kept as a point of the history.

A release of mlx or mlx-vlm meets what is installed here, a commit of this repository the anchor, one commit for the
whole history.
"""

import datetime as dt
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.environments import find_uv
from gemma3n_perf.duel.program import declared, revision
from gemma3n_perf.duel.report import interval
from gemma3n_perf.duel.run import DuelSpec, Here, choose_workloads, duel
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.duel.steps import Steps
from gemma3n_perf.errors import (
    ArmUnavailableError,
    BadConditionsError,
    DiskFullError,
    MachineBusyError,
    MalformedRecordError,
    UsageError,
)
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import point_record
from gemma3n_perf.history.changes import without_places
from gemma3n_perf.history.point_record import OWN, SCHEMA, Blocks, Point
from gemma3n_perf.stats.verdicts import Judgement, Verdict, finite, not_measured
from gemma3n_perf.store.files import SHORT_COMMIT

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PASSING = (BadConditionsError, MachineBusyError, DiskFullError)
"""What says something of the machine, and nothing of the release: never recorded as the release's failure."""


@dataclass(frozen=True, slots=True)
class Request:
    """How to measure versions of a ``line``: one ``workload``, ``budget_s`` seconds of measuring time each.

    ``anchor`` is the commit that commits of this repository meet. ``clone`` is one of mlx-vlm that holds the commits
    among the versions. ``again`` measures those anew whose record is so many days old or older; ``time_s`` is after
    how long no point is started.
    """

    line: str
    budget_s: float
    workload: str | None = None
    anchor: str | None = None
    clone: Path | None = None
    again: float | None = None
    time_s: float | None = None


def pending(request: Request, versions: Sequence[str], here: Here, now: dt.datetime | None = None) -> list[str]:
    """Return those of ``versions`` that are to be measured: without a record, or with one that is old enough."""
    now = now or dt.datetime.now(dt.UTC)
    listed = point_record.read_class(here.baselines, here.chip.chip_class)[0]
    made = {one.version: dt.datetime.fromisoformat(one.date) for one in listed if one.line == request.line}

    def stale(version: str) -> bool:
        return request.again is not None and now - made[version] >= dt.timedelta(days=request.again)

    return [version for version in versions if version not in made or stale(version)]


def expected_s(points: int, budget_s: float) -> float:
    """Return how long so many points take at most, seconds: starts of a launch take twice as long as its blocks."""
    return points * (3 * budget_s + 20)


def follow(request: Request, versions: Sequence[str], here: Here) -> Iterator[str]:
    """Duel versions against the anchor, in this order, keep a record of each, and say what it was.

    The caller holds the measuring lock. Raises UsageError, and what stops any measuring.
    """
    begun = time.monotonic()
    (workload,), _ = choose_workloads([request.workload] if request.workload else [], None, here)
    for number, version in enumerate(versions):
        passed = time.monotonic() - begun
        if request.time_s is not None and passed >= request.time_s:
            yield f"the time is up: {len(versions) - number} left; the same command goes on"
            return
        left = f", about {passed / number * (len(versions) - number) / 60:.0f} min left" if number else ""
        here.tools.note(f"{number + 1} of {len(versions)}{left}: {version[:SHORT_COMMIT]}")
        yield f"{request.line} {version[:SHORT_COMMIT]}: {_measured(request, here, version, workload)}"


def require_versions(request: Request, versions: Sequence[str]) -> None:
    """Raise UsageError for a version that is none, before the first is measured: records are named by them."""
    for version in versions:
        if not point_record.is_version(version):
            raise UsageError(f"the version {version!r}", expected="a release, such as 0.7.10, or a commit")
        parse(_arm(request, version))


def _measured(request: Request, here: Here, version: str, workload: str) -> str:
    state = None
    try:
        arm = _arm(request, version)
        anchor = f"ref:{request.anchor}" if request.anchor else "here"
        result = duel(DuelSpec(anchor, (arm,), (workload,), request.budget_s, aa=None), here)
        judged, state = result.judgements[workload], result.states[workload]
        if isinstance(state.failure, _PASSING):
            return f"{judged.verdict}: {judged.reason}; no record: try again"
    except (ArmUnavailableError, UsageError) as error:
        if request.clone is not None and isinstance(error, UsageError):
            raise  # the clone has no such release, and a record would say that it was tried
        judged = not_measured(error.found)
    unsaid = judged.verdict in (Verdict.NOT_MEASURED, Verdict.INVALID)
    found = judged.reason if unsaid else interval(judged)
    path = point_record.path_of(here.baselines, here.chip.chip_class, request.line, version)
    if judged.verdict is Verdict.NOT_MEASURED and point_record.measured(path):
        return f"{judged.verdict}: {found}; the record that is there stays"
    point_record.write(here.baselines, _point(request, here, version, workload, judged, state))
    return f"{judged.verdict} {found}; {path.name}"


def _point(
    request: Request, here: Here, version: str, workload: str, judged: Judgement, state: ComparisonState | None
) -> Point:
    """Lay out what a duel of a release (candidate) against the anchor (baseline) found; without a state, why none."""
    launches = tuple(
        Blocks(one.seconds, one.steps, one.tpot_s("baseline"), one.tpot_s("candidate"))
        for one in (state.launches if state else ())
    )
    measured = bool(launches) and judged.effect is not None
    anchor, stack = here.stack, state.sides["candidate"].stack if state and state.sides else None
    released = point_record.day(request.line, version)
    if request.anchor is not None:
        # A worker does not know the commit of the tree it was started from.
        anchor = replace(anchor, commit=request.anchor, dirty=False)
        stack = replace(stack, commit=version, dirty=False) if stack else None
        released = (
            repository_of(here).git("show", "-s", "--no-show-signature", "--format=%as", version).out.strip() or None
        )
    return Point(
        SCHEMA,
        dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        here.chip,
        request.line,
        version,
        workload,
        anchor,
        stack,
        request.budget_s,
        judged.verdict.value,
        judged.effect if measured else None,
        finite(judged.low) if measured else None,
        finite(judged.high) if measured else None,
        launches,
        None if measured else without_places(judged.reason),
        released,
    )


def repository_of(here: Here) -> Repository:
    """Return the repository that commits are taken from. Raises UsageError outside a checkout."""
    worktrees = here.builder.worktrees
    worktrees.commit("HEAD")
    return Repository(worktrees.repo or Path(), run_command)


def anchor_of(here: Here, named: str | None) -> str:
    """Return the anchor commit: the one that is named, that of the newest record, or the last release's.

    Raises UsageError for what is no commit here.
    """
    if named is None:
        listed = point_record.read_class(here.baselines, here.chip.chip_class)[0]
        dated = [(one.date, one.anchor.commit) for one in listed if one.line == OWN and one.anchor.commit]
        named = max(dated)[1] if dated else repository_of(here).last_tag() or "HEAD"
    return here.builder.worktrees.commit(named)


def programs(here: Here, first: str | None = None) -> list[str]:
    """Return the commits of HEAD's first-parent line that changed what decode runs on this class, oldest first.

    From ``first`` on, where it is named; commits without a worker, or whose files do not parse, are no program. Raises
    UsageError.
    """
    repository = repository_of(here)
    span = (f"{here.builder.worktrees.commit(first)}..HEAD",) if first else ("HEAD",)
    listed = repository.git("log", "--no-show-signature", "--first-parent", "--reverse", "--format=%H", *span).checked(
        UsageError, "the commits cannot be listed", expected="a clone with its history", remedy="git fetch --unshallow"
    )
    found, last, commits = list[str](), dict[str, str](), listed.split()
    for number, commit in enumerate(commits, start=1):
        here.tools.note(f"commit {number} of {len(commits)}: does it change decode?")
        try:
            program = declared(revision(repository, commit), here.chip.chip_class)
        except MalformedRecordError:
            continue
        if program != last and any(part.startswith("source ") for part in program):
            found.append(commit)
        last = program
    return found


def released(line: str, first: str, here: Here) -> list[str]:
    """Return the releases of a line from ``first`` to the one that is installed. Raises UsageError."""
    today = here.stack.mlx if line == "mlx" else here.stack.mlx_vlm
    worktrees = here.builder.worktrees
    steps = Steps(worktrees, worktrees.cache, run_command, find_uv())
    return [one.removeprefix(f"{line}==") for one in steps.between(f"{line}=={first}", f"{line}=={today}")]


def spread(versions: Sequence[str], points: int) -> list[str]:
    """Return ``points`` of the versions, evenly spread, both ends among them. Raises UsageError for less than one."""
    if points < 1:
        raise UsageError(f"--points {points}", expected="1 or more")
    if points >= len(versions):
        return list(versions)
    last = len(versions) - 1
    picked = {round(index * last / (points - 1)) for index in range(points)} if points > 1 else {last}
    return [versions[index] for index in sorted(picked)]


def _arm(request: Request, version: str) -> str:
    if request.line == OWN:
        return f"ref:{version}"
    if not _COMMIT.fullmatch(version):
        return f"{request.line}=={version}"
    if request.line != "mlx-vlm":
        raise UsageError("mlx is followed by its releases, which have wheels", expected="versions, for instance 0.31.2")
    return f"mlx-vlm@{request.clone}#{version}" if request.clone else f"mlx-vlm@{version}"
