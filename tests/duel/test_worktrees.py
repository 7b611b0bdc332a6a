import os
import py_compile
import subprocess
from pathlib import Path

import pytest

from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.hardware.shell import Done, run_command


def git(repo: Path, *argv: str) -> str:
    """Run git as a committer of the tests' own."""
    identity = {
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@t",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@t",
    }
    done = subprocess.run(["git", "-C", str(repo), *argv], check=True, capture_output=True, env=os.environ | identity)
    return done.stdout.decode().strip()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """Return a repository of two commits, the first tagged ``one``."""
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "--quiet", "--initial-branch=main")
    for number in ("one", "two"):
        (repo / "file").write_text(number)
        git(repo, "add", "file")
        git(repo, "commit", "--quiet", "-m", number)
        git(repo, "tag", number)
    return repo


@pytest.fixture
def worktrees(repo: Path, tmp_path: Path) -> Worktrees:
    """Return worktrees of the repository."""
    return Worktrees(repo, tmp_path / "cache", run_command)


def test_a_ref_is_resolved_to_its_commit(worktrees: Worktrees, repo: Path) -> None:
    """Tags, branches and short ids name the full commit."""
    commit = git(repo, "rev-parse", "one")
    assert worktrees.commit("one") == worktrees.commit(commit[:10]) == commit
    assert worktrees.commit("main") == git(repo, "rev-parse", "HEAD")


@pytest.mark.parametrize("ref", ["three", "0" * 40, "--all", "one:file"])
def test_an_unknown_ref_is_refused(worktrees: Worktrees, ref: str) -> None:
    """Nothing is guessed, and an option is no ref."""
    with pytest.raises(UsageError, match="no commit of this clone"):
        worktrees.commit(ref)


def test_without_a_repository_there_are_no_refs(tmp_path: Path) -> None:
    """An installed suite says what it needs."""
    with pytest.raises(UsageError, match="needs the repository"):
        Worktrees(None, tmp_path, run_command).commit("main")


def test_a_commit_is_checked_out_once(worktrees: Worktrees) -> None:
    """The folder holds that commit's files, and is used again."""
    commit = worktrees.commit("one")
    folder = worktrees.checkout(commit)
    assert (folder / "file").read_text() == "one"
    made = (folder / "file").stat().st_mtime_ns
    assert worktrees.checkout(commit) == folder
    assert (folder / "file").stat().st_mtime_ns == made


def test_a_damaged_worktree_is_made_anew(worktrees: Worktrees) -> None:
    """A file that was changed or is missing, as after an interrupt, is never measured."""
    commit = worktrees.commit("one")
    folder = worktrees.checkout(commit)
    (folder / "file").write_text("changed")
    assert (worktrees.checkout(commit) / "file").read_text() == "one"
    (folder / ".git").unlink()
    assert (worktrees.checkout(commit) / "file").read_text() == "one"


def test_hooks_of_the_repository_do_not_run(worktrees: Worktrees, repo: Path, tmp_path: Path) -> None:
    """A checkout for measuring changes nothing else."""
    hook = repo / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    worktrees.checkout(worktrees.commit("one"))
    assert not (tmp_path / "ran").exists()


def test_a_failed_checkout_is_named(repo: Path, tmp_path: Path) -> None:
    """With what git said."""

    def full(argv: object, timeout_s: float) -> Done:
        return Done(128, "", "fatal: No space left on device")

    with pytest.raises(ArmUnavailableError, match="No space left"):
        Worktrees(repo, tmp_path / "cache", full).checkout("0" * 40)


def test_a_worktree_is_what_git_holds_by_content(worktrees: Worktrees) -> None:
    """A change that keeps size and time, and that git was told to overlook, is a change all the same."""
    commit = worktrees.commit("one")
    folder = worktrees.checkout(commit)
    file, before = folder / "file", (folder / "file").stat()
    git(folder, "update-index", "--assume-unchanged", "file")
    file.write_text("0ne")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert git(folder, "status", "--porcelain") == ""
    assert (worktrees.checkout(commit) / "file").read_text() == "one"


def test_bytecode_that_lies_there_is_not_run(worktrees: Worktrees, repo: Path) -> None:
    """Python takes it for its source where times fit; git does not list what is ignored."""
    (repo / ".gitignore").write_text("__pycache__/\n")
    (repo / "module.py").write_text("print('one')\n")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "-m", "three")
    folder = worktrees.checkout(worktrees.commit("main"))
    stale = Path(py_compile.compile(str(folder / "module.py"), doraise=True) or "")
    assert git(folder, "status", "--porcelain") == ""
    made = folder.stat().st_ino
    assert worktrees.checkout(worktrees.commit("main")) == folder
    assert folder.stat().st_ino == made
    assert not stale.exists()
