"""A commit of this repository as a folder of its own: a git worktree under the user's cache, kept for the next time."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.file_lock import locked
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Run

_CHECKOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Worktrees:
    """Worktrees of the repository at ``repo`` (None: not run from a checkout), one a commit, below ``cache``."""

    repo: Path | None
    cache: Path
    run: Run

    def commit(self, ref: str) -> str:
        """Return the full commit id of ``ref``. Raises UsageError, ArmUnavailableError as ``Repository.require``."""
        if self.repo is None:
            raise UsageError(
                f"ref:{ref} needs the repository, and this suite was installed without it",
                expected="a git checkout of the suite",
                remedy="clone the repository and run gemma3n-perf from there",
            )
        return Repository(self.repo, self.run).require(ref, f"ref:{ref}")

    def checkout(self, commit: str) -> Path:
        """Return a folder that holds exactly ``commit``, made where it is missing. Raises ArmUnavailableError."""
        folder = self.cache / "worktrees" / commit
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f".{commit}.lock", _CHECKOUT_S, f"checking out {commit[:12]}"):
            if not self._is_whole(folder, commit):
                self._make(folder, commit)
        return folder

    def _is_whole(self, folder: Path, commit: str) -> bool:
        # An interrupt while files are written leaves them missing, which counts as a change.
        if not (folder / ".git").is_file():
            return False
        tree = Repository(folder, self.run)
        if tree.commit() != commit:
            return False
        # By content: git else trusts sizes and times, which can be set, and does not see bytecode, which Python runs in
        # its source's place.
        read, cleaned = tree.git("read-tree", "HEAD"), tree.git("clean", "-ffdxq")
        return read.code == cleaned.code == 0 and tree.is_dirty() is False

    def _make(self, folder: Path, commit: str) -> None:
        repository = Repository(self.repo or Path(), self.run)
        repository.git("worktree", "remove", "--force", "--force", str(folder))
        shutil.rmtree(folder, ignore_errors=True)
        repository.git("worktree", "prune")
        add = ("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", "--force")
        repository.git(*add, str(folder), commit, timeout_s=_CHECKOUT_S).checked(
            ArmUnavailableError,
            f"git cannot check out {commit[:12]} into {folder}",
            expected="a worktree of that commit",
            remedy="remove that folder, run git worktree prune, and try again",
        )
