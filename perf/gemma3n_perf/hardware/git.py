"""Git: one repository and what this suite asks of it. The standard library alone: trusted CI steps import this.

A question that git cannot answer is named, and never taken for a no.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.shell import Done, Run, run_command

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository, or a checkout of one, at ``root``; ``run`` runs git."""

    root: Path
    run: Run = run_command

    def git(self, *argv: str, timeout_s: float = _TIMEOUT_S, environ: Mapping[str, str] | None = None) -> Done:
        """Run ``git -C root`` with these arguments. ``Done.checked`` turns a failure into an error."""
        # Variables go by env(1): git's own do not pass through run_command.
        prefix = ("env", *(f"{name}={value}" for name, value in environ.items())) if environ else ()
        return self.run((*prefix, "git", "-C", str(self.root), *argv), timeout_s)

    def commit(self, ref: str = "HEAD") -> str | None:
        """Return the full id of the commit that ``ref`` names, or None where there is none."""
        return self._line("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")

    def is_dirty(self, *paths: str) -> bool | None:
        """Say whether anything below ``paths`` (everything without them) is uncommitted; None where git fails."""
        done = self.git("status", "--porcelain", "--", *paths)
        return bool(done.out.strip()) if done.code == 0 else None

    def is_ancestor(self, commit: str, of: str = "HEAD") -> bool:
        """Say whether ``of`` is ``commit`` or descends from it. False for a commit that is not in this clone."""
        return self.git("merge-base", "--is-ancestor", commit, of).code == 0

    def differs_from_head(self) -> bool | None:
        """Say whether a tracked file is uncommitted, or a file under ``perf`` is new; None where git fails."""
        tracked = self.git("status", "--porcelain", "--untracked-files=no", "--", ":(top)")
        new = self.git("status", "--porcelain", "--", ":(top)perf")
        return None if tracked.code or new.code else bool(tracked.out.strip() or new.out.strip())

    def branch(self) -> str | None:
        """Return the name of the branch that is checked out, or None where HEAD is detached."""
        return self._line("symbolic-ref", "--quiet", "--short", "HEAD")

    def default_branch(self) -> str | None:
        """Return the default branch: the remote's where it is known (``origin/main``), else main or master."""
        known = self._line("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
        names = (known, "origin/main", "origin/master", "main", "master")
        return next((name for name in names if name and self.commit(name)), None)

    def merge_base(self, one: str, other: str = "HEAD") -> str | None:
        """Return the commit that both descend from, or None where this clone holds none."""
        return self._line("merge-base", one, other)

    def last_tag(self, ref: str = "HEAD") -> str | None:
        """Return the nearest tag that ``ref`` is or descends from, or None."""
        return self._line("describe", "--tags", "--abbrev=0", ref)

    def is_shallow(self) -> bool:
        """Say whether this clone lacks history."""
        return self._line("rev-parse", "--is-shallow-repository") == "true"

    def fork(self, base: str) -> str:
        """Return the commit where HEAD left ``base``.

        Raises UsageError where ``base`` is no commit here, or shares no history with HEAD.
        """
        if self.commit(base) is None:
            raise UsageError(
                f"--base {base}: no such commit in this clone",
                expected="a branch, tag or commit that the change starts from",
                remedy="fetch it: a shallow clone has no history (fetch-depth: 0)",
            )
        fork = self.merge_base(base)
        if fork is None:
            raise UsageError(
                f"--base {base} shares no history with HEAD",
                expected="a commit that HEAD descends from, in a clone with its history",
                remedy="git fetch --unshallow",
            )
        return fork

    def changed(self, base: str) -> tuple[str, ...]:
        """Return the paths that differ between where HEAD left ``base`` and the working tree, new files included.

        Raises UsageError as ``fork`` does.
        """
        differs = self._paths("diff", "--name-only", "--no-renames", "-z", self.fork(base), "--")
        new = self._paths("ls-files", "--others", "--exclude-standard", "--full-name", "-z")
        return tuple(dict.fromkeys((*differs, *new)))

    def changed_since(self, commit: str, files: Iterable[Path]) -> tuple[str, ...]:
        """Return those of ``files`` that differ between ``commit`` and HEAD."""
        root = self.root.resolve()
        inside = [str(path.relative_to(root)) for path in (one.resolve() for one in files) if path.is_relative_to(root)]
        return self._paths("diff", "--name-only", "-z", commit, "HEAD", "--", *inside) if inside else ()

    def _line(self, *argv: str) -> str | None:
        done = self.git(*argv)
        return done.out.strip() or None if done.code == 0 else None

    def _paths(self, *argv: str) -> tuple[str, ...]:
        out = self.git(*argv).checked(
            UsageError,
            f"git {argv[0]} failed",
            expected="a git checkout of this repository",
            remedy="run the gate in a clone with its history",
        )
        return tuple(name for name in out.split("\0") if name)


def changed_files_text(names: Sequence[str]) -> str:
    """The names of a few files, and how many more."""
    shown = ", ".join(Path(name).name for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
