import os
from pathlib import Path

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.limits import CACHE, absolute_cache

BAD = os.fsdecode(b"/tmp/caf\xe9")


def test_a_relative_cache_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and git start elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CACHE, "cache")
    absolute_cache()
    assert os.environ[CACHE] == str(tmp_path / "cache")


@pytest.mark.parametrize("name", [CACHE, "XDG_CACHE_HOME", "HOME"])
def test_a_folder_that_no_worker_can_be_told_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the variable that decides; another that does not is left alone."""
    for one in (CACHE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(one, raising=False)
    monkeypatch.setenv(name, BAD)
    with pytest.raises(UsageError, match=f"{name} names a folder that is not UTF-8"):
        absolute_cache()
    if name != CACHE:
        monkeypatch.setenv(CACHE, "/tmp/cache")
        absolute_cache()


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is measured that could not be kept."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UsageError, match="has no home folder"):
        absolute_cache()
