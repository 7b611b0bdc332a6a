"""What lies between two arms that differ in one part: commits of a repository, or releases of a package."""

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from gemma3n_perf.duel.arms import is_version, parts
from gemma3n_perf.duel.packages import HOMES
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run

_S, _CLONE_S = 120.0, 900.0
_KIND = re.compile(r"ref:|mlx==|mlx-vlm==|mlx-vlm@")


@dataclass(frozen=True, slots=True)
class Steps:
    """Finds steps with git and uv. ``cache`` holds a clone of mlx-vlm where its commits are asked for."""

    worktrees: Worktrees
    cache: Path
    run: Run
    uv: str = "uv"

    def between(self, good: str, bad: str) -> list[str]:
        """Return arms from ``good`` to ``bad``, both included, in order.

        Raises UsageError where the arms differ in more than one part, or the order is wrong; ArmUnavailableError.
        """
        ours, theirs = parts(good), parts(bad)
        old = [part for part in ours if part not in theirs]
        new = [part for part in theirs if part not in ours]
        kinds = {match[0] if (match := _KIND.match(part)) else part for part in (*old, *new)}
        if len(old) != 1 or len(new) != 1 or len(kinds) != 1 or not _KIND.match(old[0]):
            raise UsageError(
                f"{good} and {bad} do not differ in one part alone",
                expected="two of ref:COMMIT, mlx==VERSION, mlx-vlm==VERSION or mlx-vlm@COMMIT, the rest equal",
            )
        kind = kinds.pop()
        first, last = old[0].removeprefix(kind), new[0].removeprefix(kind)
        values = self._values(kind, first, last)
        return ["+".join(f"{kind}{value}" if part == old[0] else part for part in ours) for value in values]

    def _values(self, kind: str, first: str, last: str) -> list[str]:
        if kind == "ref:":
            ends = self.worktrees.commit(first), self.worktrees.commit(last)
            return self._commits(Repository(self.worktrees.repo or Path(), self.run), *ends)
        if kind == "mlx-vlm@":
            clone = self._clone()
            ends = clone.require(first, f"{kind}{first}"), clone.require(last, f"{kind}{last}")
            return self._commits(clone, *ends)
        return self._releases(kind.removesuffix("=="), first, last)

    def _commits(self, repository: Repository, first: str, last: str) -> list[str]:
        listed = repository.git("rev-list", "--reverse", "--first-parent", f"{first}..{last}", timeout_s=_S)
        found = listed.out.split()
        if listed.code != 0 or not found or not repository.is_ancestor(first, last):
            repository.require_history(f"{last[:12]} does not come after {first[:12]} in this clone")
            raise UsageError(
                f"{last[:12]} does not come after {first[:12]}",
                expected="GOOD before BAD on one line of history",
                remedy="swap them if the speed-up is what is looked for",
            )
        return [first, *found]

    def _clone(self) -> Repository:
        clone = self.cache / "mlx-vlm.git"
        if clone.is_dir():
            argv = ("fetch", "--quiet", "--tags", HOMES["mlx-vlm"], "+refs/*:refs/*")
        else:
            clone.parent.mkdir(parents=True, exist_ok=True)
            argv = ("clone", "--quiet", "--mirror", HOMES["mlx-vlm"], str(clone))
        done = Repository(clone if clone.is_dir() else clone.parent, self.run).git(*argv, timeout_s=_CLONE_S)
        if not clone.is_dir():
            raise ArmUnavailableError(
                f"mlx-vlm cannot be cloned: {done.last_output}",
                expected=f"the repository {HOMES['mlx-vlm']}, reachable from here",
                remedy="check the network, or bisect over its releases: mlx-vlm==VERSION",
            )
        return Repository(clone, self.run)

    def _releases(self, package: str, first: str, last: str) -> list[str]:
        argv = (self.uv, "tool", "run", "--quiet", "pip", "index", "versions", package)
        done = self.run(argv, _S)
        match = re.search(r"^Available versions:(.*)$", done.out, re.MULTILINE)
        if done.code != 0 or match is None:
            raise ArmUnavailableError(
                f"the releases of {package} cannot be listed: {done.last_output}",
                expected="a package index that answers",
                remedy="check the network",
            )
        newest_first = [version.strip() for version in match[1].split(",")]
        known = list(reversed(newest_first))
        for version in (first, last):
            if not is_version(version):
                raise UsageError(f"{package} {version[:40]}", expected="a release, for instance 0.32.4")
            if version not in known:
                below = [one for one in known if Version(one) < Version(version)][-1:]
                above = [one for one in known if Version(one) > Version(version)][:1]
                raise UsageError(
                    f"{package} has no release {version}",
                    expected="releases that have a wheel for this machine",
                    remedy=f"the nearest that exist: {' and '.join(below + above)}",
                )
        if known.index(first) >= known.index(last):
            raise UsageError(f"{package} {last} does not come after {first}", expected="GOOD before BAD")
        return known[known.index(first) : known.index(last) + 1]
