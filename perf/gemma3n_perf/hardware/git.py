"""Git: one repository and what this suite asks of it. The standard library alone: trusted CI steps import this.

A question that git cannot answer is named, and never taken for a no: git that cannot be run, a checkout that it refuses
to read, a history that was cut off.
"""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.shell import MISSING, Done, Run, run_command

_TIMEOUT_S = 60.0
_OWNED = re.compile(r"fatal: (?:detected dubious ownership in repository at|unsafe repository) \(?'([^']+)'")
_NO_TOOLS = ("xcrun: error:", "xcode-select: ")
"""What macOS says in git's place where its developer tools are missing."""

_NEW = "--untracked-files=normal"
"""Whatever the user's own settings are."""

_COMMIT = re.compile("[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository, or a checkout of one, at ``root``; ``run`` runs git."""

    root: Path
    run: Run = run_command

    def git(self, *argv: str, timeout_s: float = _TIMEOUT_S, environ: Mapping[str, str] | None = None) -> Done:
        """Run ``git -C root`` with these arguments. ``Done.checked`` turns a failure into an error.

        Raises ArmUnavailableError where git cannot be run, or refuses to read a checkout of another user's.
        """
        # Variables go by env(1): git's own do not pass through run_command.
        prefix = ("env", *(f"{name}={value}" for name, value in environ.items())) if environ else ()
        done = self.run((*prefix, "git", "-C", str(self.root), *argv), timeout_s)
        if done.code == MISSING or (done.code and done.err.startswith(_NO_TOOLS)):
            raise ArmUnavailableError(
                f"git cannot be run: {done.last_output}",
                expected="git on the PATH, which knows earlier commits and what changed since",
                remedy="install git (on macOS: xcode-select --install)",
            )
        if done.code and (refused := _OWNED.search(done.err)):
            raise ArmUnavailableError(
                f"git refuses to read {refused[1]}: it belongs to another user",
                expected="a checkout of this user's own, or one that git was told to trust",
                remedy=f"git config --global --add safe.directory {shlex.quote(refused[1])}",
            )
        return done

    def commit(self, ref: str = "HEAD") -> str | None:
        """Return the full id of the commit that ``ref`` names, or None where there is none."""
        found = self._line("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        # A git that is none prints anything, and ids become names of folders.
        return found if found and _COMMIT.fullmatch(found) else None

    def require(self, ref: str, named: str) -> str:
        """Return the full id of the commit that ``ref`` names, which the user wrote as ``named``.

        Raises UsageError where there is none, ArmUnavailableError where it may be in history that this clone lacks.
        """
        found = self.commit(ref)
        if found is None:
            self.require_history(f"{named} is no commit of this clone")
            raise UsageError(
                f"{named} is no commit of this clone",
                expected="a branch, tag or commit that git rev-parse knows",
                remedy="git fetch --tags, or check the spelling",
            )
        return found

    def require_history(self, found: str) -> None:
        """Raise ArmUnavailableError, with what was ``found``, where this clone lacks history that could explain it."""
        if self.is_shallow():
            raise ArmUnavailableError(
                f"{found}, which is shallow: its history was cut off",
                expected="a clone with its history",
                remedy="git fetch --unshallow --tags (in CI: fetch-depth: 0)",
            )

    def is_dirty(self, *paths: str) -> bool | None:
        """Say whether anything below ``paths`` (everything without them) is uncommitted; None where git fails."""
        done = self.git("status", "--porcelain", _NEW, "--", *paths)
        return bool(done.out.strip()) if done.code == 0 else None

    def is_ancestor(self, commit: str, of: str = "HEAD") -> bool:
        """Say whether ``of`` is ``commit`` or descends from it. False for a commit that is not in this clone."""
        return self.git("merge-base", "--is-ancestor", commit, of).code == 0

    def differs_from_head(self) -> bool | None:
        """Say whether a tracked file is uncommitted, or a file under ``perf`` is new; None where git fails."""
        tracked = self.git("status", "--porcelain", "--untracked-files=no", "--", ":(top)")
        new = self.git("status", "--porcelain", _NEW, "--", ":(top)perf")
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

        Raises UsageError where ``base`` is no commit here, or shares no history with HEAD; ArmUnavailableError where
        this clone may lack it.
        """
        # The id and not the name, which may look like an option.
        fork = self.merge_base(self.require(base, f"--base {base}"))
        if fork is None:
            self.require_history(f"--base {base} shares no history with HEAD in this clone")
            raise UsageError(
                f"--base {base} shares no history with HEAD", expected="a commit that HEAD has a common ancestor with"
            )
        return fork

    def changed(self, base: str) -> tuple[str, ...]:
        """Return the paths that differ between where HEAD left ``base`` and the working tree, new files included.

        Raises as ``fork`` does.
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
