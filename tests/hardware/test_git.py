import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gemma3n_perf.errors import ArmUnavailableError, NotMeasuredError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Done, run_command
from tests.hardware.test_stack import git


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """Return a repository with one commit, tagged ``one``."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "file").write_text("1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    git(tmp_path, "tag", "one")
    return Repository(tmp_path)


def test_a_ref_names_its_commit_or_none(repository: Repository) -> None:
    """Tags, branches and short ids; what is no commit is None, and an option is no ref."""
    commit = git(repository.root, "rev-parse", "HEAD")
    assert {repository.commit(), repository.commit("one"), repository.commit(commit[:10])} == {commit}
    assert {repository.commit(ref) for ref in ("two", "0" * 40, "--all", "one:file", "")} == {None}


@pytest.mark.parametrize("printed", ["\x00\nnonsense", "HEAD", "../../etc", "a" * 39])
def test_what_is_no_id_names_no_commit(tmp_path: Path, printed: str) -> None:
    """A git that prints garbage and says that all went well: ids become names of folders."""
    repository = Repository(tmp_path, lambda argv, timeout_s: Done(0, printed, ""))
    assert repository.commit() is None
    with pytest.raises(UsageError, match="no commit of this clone"):
        repository.require("HEAD", "ref:HEAD")


def test_changes_are_seen_below_the_paths_asked_about(repository: Repository) -> None:
    """A new file counts."""
    assert repository.is_dirty() is False
    (repository.root / "new").write_text("")
    assert repository.is_dirty() is True
    assert repository.is_dirty("file") is False


def test_outside_git_nothing_is_known(tmp_path: Path) -> None:
    """Unknown is not clean."""
    outside = Repository(tmp_path)
    assert (outside.commit(), outside.is_dirty(), outside.is_ancestor("1" * 40)) == (None, None, False)


def test_a_failure_quotes_git(repository: Repository) -> None:
    """With the caller's own error, expectation and remedy."""
    with pytest.raises(NotMeasuredError, match="cannot list: fatal: ") as failed:
        repository.git("rev-list", "nowhere").checked(NotMeasuredError, "cannot list", expected="e", remedy="r")
    assert (failed.value.expected, failed.value.remedy) == ("e", "r")
    assert repository.git("tag").checked(NotMeasuredError, "") == "one\n"


def test_variables_reach_git(repository: Repository) -> None:
    """Those of the caller, not those of a hook."""
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    git_date = {"GIT_COMMITTER_DATE": "1600000000 +0000"}
    repository.git(*who, "commit", "--allow-empty", "--quiet", "-m", "two", environ=git_date).checked(
        NotMeasuredError, ""
    )
    assert repository.git("log", "-1", "--format=%ct").out == "1600000000\n"


def test_no_git_on_the_path_is_named(repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no repository without commits, nor one with changes."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for ask in (repository.commit, repository.is_dirty, lambda: repository.fork("one"), repository.differs_from_head):
        with pytest.raises(
            ArmUnavailableError, match=r"^git cannot be run: git: No such file or directory\n"
        ) as caught:
            ask()
        assert caught.value.exit_code == 4
    with pytest.raises(ArmUnavailableError, match="git cannot be run: env: No such file"):
        repository.git("tag", environ={"GIT_COMMITTER_DATE": "1"})


def test_the_git_that_macos_has_without_its_tools_is_none(tmp_path: Path) -> None:
    """Apple's stands there and says where to get one."""
    said = "xcrun: error: invalid active developer path (/Library/Developer/CommandLineTools), missing xcrun\n"
    with pytest.raises(ArmUnavailableError, match="git cannot be run: xcrun: error") as caught:
        Repository(tmp_path, lambda argv, timeout_s: Done(1, "", said)).commit()
    assert "xcode-select --install" in str(caught.value.remedy)


def test_a_checkout_of_another_user_is_named(repository: Repository) -> None:
    """As git itself refuses it, with the folder that it is to trust."""

    def elsewhere(argv: Sequence[str], timeout_s: float) -> Done:
        ours = ("env", f"HOME={repository.root}", "GIT_CONFIG_NOSYSTEM=1", "GIT_TEST_ASSUME_DIFFERENT_OWNER=1")
        return run_command((*ours, *argv), timeout_s)

    root = os.path.realpath(repository.root)
    with pytest.raises(ArmUnavailableError, match=f"git refuses to read {root}: it belongs to another user") as caught:
        Repository(repository.root, elsewhere).commit()
    assert caught.value.exit_code == 4
    assert caught.value.remedy == f"git config --global --add safe.directory {root}"


def test_a_shallow_clone_may_lack_what_was_asked_for(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Which a whole one cannot, so there it is a wrong request."""
    root = repository.root
    git(root, "commit", "-q", "--allow-empty", "-m", "second")
    git(root, "checkout", "-q", "--orphan", "alone")
    git(root, "commit", "-q", "-m", "alone")
    folder = tmp_path_factory.mktemp("clones")
    for name, depth in (("whole", ()), ("cut", ("--depth", "1", "--no-single-branch"))):
        git(root, "clone", "-q", *depth, f"file://{root}", str(folder / name))
    whole, cut = Repository(folder / "whole"), Repository(folder / "cut")
    assert whole.require("origin/main~1", "x") == whole.commit("one")
    asked: tuple[tuple[Callable[[Repository], str], str], ...] = (
        (lambda one: one.require("origin/main~1^", "ref:old"), "ref:old is no commit of this clone"),
        (lambda one: one.fork("nowhere"), "--base nowhere is no commit of this clone"),
        (lambda one: one.fork("origin/main"), "--base origin/main shares no history with HEAD"),
    )
    for ask, said in asked:
        with pytest.raises(UsageError, match=said):
            ask(whole)
        with pytest.raises(ArmUnavailableError, match=f"{said}.*which is shallow") as caught:
            ask(cut)
        assert "--unshallow" in str(caught.value.remedy)


def test_a_tag_that_looks_like_an_option_is_a_name(repository: Repository) -> None:
    """Where HEAD left it is its commit, whatever git's commands would take the name for."""
    first = git(repository.root, "rev-parse", "HEAD")
    git(repository.root, "commit", "-q", "--allow-empty", "-m", "second")
    assert repository.git("update-ref", "refs/tags/--octopus", first).code == 0
    assert repository.fork("--octopus") == first


def test_untracked_files_are_changes_whatever_the_user_set(repository: Repository) -> None:
    """A setting that hides them would make a session of them look like one of its commit."""
    assert repository.git("config", "status.showUntrackedFiles", "no").code == 0
    (repository.root / "perf").mkdir(exist_ok=True)
    (repository.root / "perf" / "new.py").touch()
    assert repository.is_dirty()
    assert repository.differs_from_head()
