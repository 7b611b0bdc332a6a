"""Releases of mlx and mlx-vlm: their days, and a git repository of them, since asv knows only commits.

The repository has one branch a line (mlx, mlx-vlm) and one empty commit a release, everything in it fixed by the
release itself. So the hashes are the same on every machine, and nothing has to be cloned to build the site.
"""

import datetime as dt
import json
from collections.abc import Mapping
from pathlib import Path

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Done, Run

_EPOCH = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
_WHO = ("-c", "user.name=upstream", "-c", "user.email=upstream@localhost")

_DAYS = Path(__file__).with_name("release_days.json")


def day(line: str, version: str) -> str | None:
    """Return the day of a release's tag in the project's own repository, ISO 8601; None where it is not known here."""
    days: dict[str, dict[str, str]] = json.loads(_DAYS.read_bytes())
    return days.get(line, {}).get(version)


def build(
    path: Path, lines: Mapping[str, Mapping[str, str | None]], run: Run
) -> dict[tuple[str, str], tuple[str, int]]:
    """Make a bare repository with a branch for each line; returns (commit, date in ms) by (line, version).

    ``lines`` are the days of versions, in order, ISO 8601 or None. Raises NotMeasuredError where git fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _output(Repository(path.parent, run).git("init", "--quiet", "--bare", path.name))
    git = Repository(path, run).git
    tree = _output(git("hash-object", "-w", "-t", "tree", "/dev/null"))
    made: dict[tuple[str, str], tuple[str, int]] = {}
    for line, releases in lines.items():
        parents, stamp = tuple[str, ...](), int(_EPOCH.timestamp())
        for version, released in releases.items():
            # Order comes from parents; a day that is unknown or runs backwards becomes the next second.
            day_s = dt.datetime.fromisoformat(released).replace(tzinfo=dt.UTC).timestamp() if released else 0
            stamp = max(stamp + 1, int(day_s))
            commit = _output(
                _dated(path, stamp, run).git(*_WHO, "commit-tree", tree, *parents, "-m", f"{line} {version}")
            )
            made[line, version] = commit, stamp * 1000
            _output(git("update-ref", f"refs/tags/{line}-{version}", commit))
            _output(git("update-ref", f"refs/heads/{line}", commit))
            parents = ("-p", commit)
    first = next((line for line, releases in lines.items() if releases), "mlx")
    _output(git("symbolic-ref", "HEAD", f"refs/heads/{first}"))
    return made


def _dated(path: Path, stamp: int, run: Run) -> Repository:
    # The dates go by env(1): git's own variables do not pass through run_command.
    dates = ("env", f"GIT_AUTHOR_DATE={stamp} +0000", f"GIT_COMMITTER_DATE={stamp} +0000")
    return Repository(path, lambda argv, timeout_s: run((*dates, *argv), timeout_s))


def _output(done: Done) -> str:
    return done.checked(NotMeasuredError, "git failed", expected="git 2.28 or later, and room on the disk").strip()
