"""A git repository made of releases, so that asv, which knows only commits, can show them.

Opinion: one branch a line (mlx, mlx-vlm), one empty commit a release, everything in it fixed by the release itself.
So the hashes are the same on every machine, and nothing has to be cloned to build the site.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.shell import Run

_GIT_S = 60.0
_EPOCH = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
_WHO = ("-c", "user.name=upstream", "-c", "user.email=upstream@localhost")


@dataclass(frozen=True, slots=True)
class Release:
    """A version of a line. ``released`` is its day, ISO 8601; None where nobody said."""

    version: str
    released: str | None = None


def build(repo: Path, lines: Mapping[str, Sequence[Release]], run: Run) -> dict[tuple[str, str], tuple[str, int]]:
    """Make a bare repository with a branch for each line; returns (commit, date in ms) by (line, version).

    Raises NotMeasuredError where git fails.
    """
    repo.parent.mkdir(parents=True, exist_ok=True)
    _git(run, "init", "--quiet", "--bare", str(repo))
    tree = _git(run, "-C", str(repo), "hash-object", "-w", "-t", "tree", "/dev/null")
    made: dict[tuple[str, str], tuple[str, int]] = {}
    for line, releases in lines.items():
        parent, stamp = None, int(_EPOCH.timestamp())
        for one in releases:
            # Order comes from parents; a day that is unknown or runs backwards becomes the next second.
            stamp = max(stamp + 1, _stamp(one.released))
            parent = _commit(repo, tree, parent, f"{line} {one.version}", stamp, run)
            made[line, one.version] = parent, stamp * 1000
            _git(run, "-C", str(repo), "update-ref", f"refs/tags/{line}-{one.version}", parent)
        if parent is not None:
            _git(run, "-C", str(repo), "update-ref", f"refs/heads/{line}", parent)
    first = next((line for line, releases in lines.items() if releases), "mlx")
    _git(run, "-C", str(repo), "symbolic-ref", "HEAD", f"refs/heads/{first}")
    return made


def _commit(repo: Path, tree: str, parent: str | None, message: str, stamp: int, run: Run) -> str:
    when = f"{stamp} +0000"
    parents = ("-p", parent) if parent else ()
    return _git(
        run, "-C", str(repo), *_WHO, "commit-tree", tree, *parents, "-m", message,
        environ={"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when},
    )  # fmt: skip


def _git(run: Run, *argv: str, environ: Mapping[str, str] | None = None) -> str:
    # The dates go by env(1): git's own variables do not pass through run_command.
    prefix = ("env", *(f"{name}={value}" for name, value in environ.items())) if environ else ()
    done = run((*prefix, "git", *argv), _GIT_S)
    if done.code != 0:
        raise NotMeasuredError(f"git failed: {done.last_output}", expected="git 2.28 or later, and room on the disk")
    return done.out.strip()


def _stamp(released: str | None) -> int:
    if released is None:
        return 0
    return int(dt.datetime.fromisoformat(released).replace(tzinfo=dt.UTC).timestamp())
