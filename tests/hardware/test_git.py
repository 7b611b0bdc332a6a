from pathlib import Path

import pytest

from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.git import Repository
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
