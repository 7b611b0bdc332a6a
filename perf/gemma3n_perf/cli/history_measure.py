"""The two actions of ``gemma3n-perf history`` that measure: confirming steps, and following releases."""

import argparse
import datetime as dt
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from gemma3n_perf.cli.site import places
from gemma3n_perf.duel.report import interval
from gemma3n_perf.errors import (
    ArmUnavailableError,
    BadConditionsError,
    DiskFullError,
    MachineBusyError,
    PerfError,
    UsageError,
)
from gemma3n_perf.hardware.shell import Run, run_command
from gemma3n_perf.history import confirmations, release_days, upstream
from gemma3n_perf.history.building import all_series, bring_up
from gemma3n_perf.stats.verdicts import Verdict, not_measured
from gemma3n_perf.workload.workload import defaults

if TYPE_CHECKING:
    from gemma3n_perf.duel import run as dueling

_FULL = 40
_PASSING = (BadConditionsError, MachineBusyError, DiskFullError)
"""What says something of the machine, and nothing of the release: never recorded as the release's failure."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A step to put to a duel."""

    workload: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Arena:
    """What measures: how the machine is held, and how a duel is fought on it."""

    machine: Callable[[Path | None, TextIO], AbstractContextManager["dueling.Here"]]
    duel: Callable[["dueling.Asked", "dueling.Here"], "dueling.Answer"]


def this_arena() -> Arena:
    """Return the real one."""
    from gemma3n_perf.duel import run as dueling  # MLX takes seconds to import

    return Arena(dueling.machine, dueling.duel)


def confirm(args: argparse.Namespace, out: TextIO, err: TextIO, arena: Arena | None = None) -> int:
    """Duel the two commits of each open step of this chip class and keep the records. Returns the worst exit code."""
    from gemma3n_perf.cli.duel import record
    from gemma3n_perf.duel import record as store
    from gemma3n_perf.duel import run as dueling

    arena = arena or this_arena()

    if len(args.commits) not in (0, 2):
        raise UsageError(f"{len(args.commits)} commits", expected="BEFORE and AFTER, or none for all open steps")
    where = places(args)
    worst = 0
    with arena.machine(where.baselines, err) as here:
        suspects = _suspects(args, here.chip.chip_class)
        if not suspects:
            out.write(f"no step of {here.chip.chip_class} is open\n")
        for before, after in dict.fromkeys((one.before, one.after) for one in suspects):
            workloads = tuple(one.workload for one in suspects if (one.before, one.after) == (before, after))
            asked = dueling.Asked(f"ref:{before}", f"ref:{after}", workloads, args.budget)
            answer = arena.duel(asked, here)
            path = confirmations.path_of(where.baselines, here.chip.chip_class, before, after)
            store.write(path, record(answer, here))
            for workload, judged in answer.judgements.items():
                out.write(f"{workload}, {before[:12]} to {after[:12]}: {judged.verdict} {interval(judged)}\n")
                worst = max(worst, judged.exit_code)
            out.write(f"  kept in {path}\n")
    return worst


def _suspects(args: argparse.Namespace, chip_class: str) -> tuple[Suspect, ...]:
    where = places(args)
    _, staged, known = bring_up(where, run_command)
    if args.commits:
        full = [_full(where.repo, one) for one in args.commits]
        measured = [one for one in staged.files if one.machine == chip_class and one.commit == full[1]]
        names = (
            [args.workload]
            if args.workload
            else sorted({n for f in measured for e in f.entries.values() for n in e.values})
        )
        if not names:
            raise UsageError(f"nothing was measured at {full[1][:12]} on {chip_class}", remedy="name a --workload")
        return tuple(Suspect(name, full[0], full[1]) for name in names)
    listed, _ = all_series(where, staged, known)
    return tuple(
        Suspect(one.workload, found.before, found.after)
        for one in listed
        if one.chip_class == chip_class and args.workload in (None, one.workload)
        for found in one.found
        if found.standing in ("suspected", "open")
    )


def _full(repo: Path, commit: str) -> str:
    done = run_command(("git", "-C", str(repo), "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}"), 60.0)
    if done.code != 0:
        raise UsageError(f"there is no commit {commit!r} here", expected="a commit of this repository")
    return done.out.strip()


def follow(args: argparse.Namespace, out: TextIO, err: TextIO, arena: Arena | None = None) -> int:
    """Duel releases of one line against what is installed, newest first, and keep a record of each."""
    arena = arena or this_arena()
    where = places(args)
    begun = time.monotonic()
    with arena.machine(where.baselines, err) as here:
        workload = args.workload or str(defaults(here.chip.vendor)[0])
        versions = _versions(args, here)
        for number, version in enumerate(versions):
            if not args.again and upstream.path_of(where.baselines, here.chip.chip_class, args.line, version).exists():
                out.write(f"{args.line} {version}: has a record\n")
                continue
            if args.time is not None and time.monotonic() - begun > args.time:
                out.write(f"the time is up: {len(versions) - number} left; the same command goes on\n")
                break
            out.write(_point(args, here, arena, where.baselines, version, workload))
            out.flush()
    return 0


def _point(
    args: argparse.Namespace, here: "dueling.Here", arena: Arena, baselines: Path, version: str, workload: str
) -> str:
    from gemma3n_perf.duel import run as dueling

    fought = None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            asked = dueling.Asked(
                "here", _arm(args, version, Path(scratch), run_command), (workload,), args.budget, aa=None
            )
            answer = arena.duel(asked, here)
        found, fought = answer.judgements[workload], answer.fought[workload]
        if isinstance(fought.failure, _PASSING):
            return f"{args.line} {version}: {found.verdict}: {found.reason}; no record: try again\n"
    except _PASSING:
        raise
    except (ArmUnavailableError, UsageError) as error:
        found = not_measured(error.found)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    one = upstream.point(
        args.line, version, workload, chip=here.chip, anchor=here.stack, budget_s=args.budget, date=now, found=found,
        fought=fought, released=release_days.day(args.line, version),
    )  # fmt: skip
    path = upstream.write(baselines, one)
    said = found.reason if found.verdict in (Verdict.NOT_MEASURED, Verdict.INVALID) else interval(found)
    return f"{args.line} {version}: {found.verdict} {said}; {path.name}\n"


def _versions(args: argparse.Namespace, here: "dueling.Here") -> list[str]:
    if bool(args.versions) == bool(args.first):
        raise UsageError("which releases?", expected="--from VERSION or --versions A,B,...")
    named = args.versions.replace(" ", "").strip(",").split(",") if args.versions else _released(args, here)
    if args.points is not None:
        named = spread(named, args.points)
    return named[::-1]


def _released(args: argparse.Namespace, here: "dueling.Here") -> list[str]:
    from gemma3n_perf.duel.environments import find_uv
    from gemma3n_perf.duel.steps import Steps

    today = here.stack.mlx if args.line == "mlx" else here.stack.mlx_vlm
    worktrees = here.builder.worktrees
    steps = Steps(worktrees, worktrees.cache, run_command, find_uv())
    between = steps.between(f"{args.line}=={args.first}", f"{args.line}=={today}")
    return [one.removeprefix(f"{args.line}==") for one in between]


def spread(versions: Sequence[str], points: int) -> list[str]:
    """Return ``points`` of the versions, evenly spread, both ends among them."""
    if points < 1:
        raise UsageError(f"--points {points}", expected="1 or more")
    if points >= len(versions):
        return list(versions)
    last = len(versions) - 1
    picked = {round(index * last / max(points - 1, 1)) for index in range(points)} if points > 1 else {last}
    return [versions[index] for index in sorted(picked)]


def _arm(args: argparse.Namespace, version: str, scratch: Path, run: Run) -> str:
    commit = len(version) == _FULL and all(letter in "0123456789abcdef" for letter in version)
    if not commit:
        return f"{args.line}=={version}"
    if args.line != "mlx-vlm":
        raise UsageError("mlx is followed by its releases, which have wheels", expected="versions, for instance 0.31.2")
    return f"mlx-vlm@{exported(args.clone, version, scratch, run)}" if args.clone else f"mlx-vlm@{version}"


def exported(clone: Path, commit: str, scratch: Path, run: Run) -> Path:
    """Return a folder with the tree of one commit of a clone. Raises UsageError where the clone has none."""
    tar, folder = scratch / f"{commit}.tar", scratch / commit[:12]
    done = run(("git", "-C", str(clone), "archive", "--output", str(tar), commit), 120.0)
    if done.code != 0:
        raise UsageError(f"{clone} has no commit {commit[:12]}: {done.last_output}", expected="a clone of mlx-vlm")
    try:
        with tarfile.open(tar) as archive:
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        raise PerfError(f"{commit[:12]} cannot be unpacked: {error}") from error
    return folder
