from pathlib import Path

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history.following import exported, spread
from tests.history.replay import repository


def test_points_are_spread_with_both_ends() -> None:
    """Evenly, and all where there are few."""
    assert spread(["a", "b", "c", "d", "e"], 3) == ["a", "c", "e"]
    assert spread(["a", "b"], 5) == ["a", "b"]
    assert spread(["a", "b"], 1) == ["b"]
    with pytest.raises(UsageError):
        spread(["a"], 0)


def test_a_commit_is_taken_from_a_local_clone(tmp_path: Path) -> None:
    """As a folder of its tree; one that is not there is named."""
    clone = tmp_path / "clone"
    repository(clone, 1)
    (clone / "setup.py").write_text("")
    who = ("git", "-C", str(clone), "-c", "user.name=s", "-c", "user.email=s@localhost")
    run_command((*who, "add", "setup.py"), 60.0)
    run_command((*who, "commit", "--quiet", "-m", "c"), 60.0)
    commit = run_command((*who, "rev-parse", "HEAD"), 60.0).out.strip()
    assert [one.name for one in exported(clone, commit, tmp_path).iterdir()] == ["setup.py"]
    with pytest.raises(UsageError, match="has no commit"):
        exported(tmp_path / "clone", "f" * 40, tmp_path)
