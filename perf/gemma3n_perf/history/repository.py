"""What is asked of git: which commits there are, in which order, and when they were made.

Opinion: a history is ordered by parents, never by clocks. Dates are labels.
"""

from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.shell import Run

_GIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Commits:
    """The commits of a repository. ``line`` is HEAD's first-parent line, oldest first; ``dates`` of all commits,
    milliseconds since 1970; ``subjects`` their first lines."""

    line: tuple[str, ...]
    dates: dict[str, int]
    subjects: dict[str, str]
    shallow: bool = False


def commits(repo: Path, run: Run) -> Commits:
    """Read the commits of ``repo``. Raises UsageError where it is no git repository."""
    git = ("git", "-C", str(repo))
    line = run((*git, "rev-list", "--first-parent", "--reverse", "HEAD"), _GIT_S)
    everything = run((*git, "log", "--all", "HEAD", "--format=%H%x09%at%x09%s"), _GIT_S)
    if line.code or everything.code:
        raise UsageError(
            f"{repo} is no git repository with a commit: {(line if line.code else everything).last_output}",
            expected="a clone of the repository, with its history",
        )
    shallow = run((*git, "rev-parse", "--is-shallow-repository"), _GIT_S).out.strip() == "true"
    dates, subjects = dict[str, int](), dict[str, str]()
    for one in everything.out.splitlines():
        commit, stamp, subject = one.split("\t", 2)
        dates[commit], subjects[commit] = int(stamp) * 1000, subject
    return Commits(tuple(line.out.split()), dates, subjects, shallow)
