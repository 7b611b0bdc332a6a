"""What the gate asks git. A question that git cannot answer is named, and never taken for a no."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.shell import Done, Run

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Repository:
    """A checkout at ``root``; ``run`` runs git."""

    root: Path
    run: Run

    def changed(self, base: str) -> tuple[str, ...]:
        """Return the paths that differ between where HEAD left ``base`` and the working tree, new files included.

        Raises UsageError where ``base`` is no commit here, or shares no history with HEAD.
        """
        if self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}").code:
            raise UsageError(
                f"--base {base}: no such commit in this clone",
                expected="a branch, tag or commit that the change starts from",
                remedy="fetch it: a shallow clone has no history (fetch-depth: 0)",
            )
        fork = self._git("merge-base", base, "HEAD")
        if fork.code:
            raise UsageError(
                f"--base {base} shares no history with HEAD",
                expected="a commit that HEAD descends from, in a clone with its history",
                remedy="git fetch --unshallow",
            )
        differs = self._asked("diff", "--name-only", "--no-renames", "-z", fork.out.strip(), "--")
        new = self._asked("ls-files", "--others", "--exclude-standard", "--full-name", "-z")
        return tuple(dict.fromkeys(name for name in (differs + new).split("\0") if name))

    def holds(self, commit: str) -> bool:
        """Whether HEAD is ``commit`` or descends from it. False for a commit that is not in this clone."""
        return self._git("merge-base", "--is-ancestor", commit, "HEAD").code == 0

    def changed_since(self, commit: str, files: Iterable[Path]) -> tuple[str, ...]:
        """Return those of ``files`` that differ between ``commit`` and HEAD."""
        inside = [str(path.resolve().relative_to(self.root.resolve())) for path in files if self._inside(path)]
        if not inside:
            return ()
        out = self._asked("diff", "--name-only", "-z", commit, "HEAD", "--", *inside)
        return tuple(name for name in out.split("\0") if name)

    def _inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root.resolve())

    def _git(self, *argv: str) -> Done:
        return self.run(("git", "-C", str(self.root), *argv), _TIMEOUT_S)

    def _asked(self, *argv: str) -> str:
        done = self._git(*argv)
        if done.code:
            raise UsageError(
                f"git {argv[0]} failed: {done.last_output}",
                expected="a git checkout of this repository",
                remedy="run the gate in a clone with its history",
            )
        return done.out


def changed_files_text(names: Sequence[str]) -> str:
    """The names of a few files, and how many more."""
    shown = ", ".join(Path(name).name for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
