from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import DiskFullError, UsageError
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.local import data_folder, local_folder, save_session
from tests.fakes import CHIP, STACK, document
from tests.store.test_files import FullDisk


def test_sessions_are_stored_by_chip_class(tmp_path: Path) -> None:
    """Each session becomes the next file of its class and can be read back as the stand-in."""
    first = save_session(document("a"), tmp_path)
    second = save_session(document("b", stack=replace(STACK, dirty=True)), tmp_path)
    assert first == tmp_path / "sessions" / CHIP.chip_class / "0001_0123456789ab.json"
    assert second.name == "0002_0123456789ab-dirty.json"
    baseline = Baselines.local(local_folder(CHIP.chip_class, tmp_path))
    assert baseline is not None
    assert baseline.sessions[0].id == "b"


def test_unversioned_session_can_be_read_back(tmp_path: Path) -> None:
    """A session measured outside a git checkout is kept locally under a name that says so."""
    path = save_session(document("a", stack=replace(STACK, commit=None, dirty=None)), tmp_path)
    assert path.name == "0001_unversioned.json"
    assert Baselines.local(path.parent) is not None


def test_planted_session_is_not_saved(tmp_path: Path) -> None:
    """A smoke detector's test never becomes a reference."""
    with pytest.raises(UsageError, match="planted"):
        save_session(document(planted=0.25), tmp_path)
    assert not list(tmp_path.rglob("*.json"))


def test_full_disk_is_named(tmp_path: Path) -> None:
    """Without room the error says so and leaves no half file behind."""
    with pytest.raises(DiskFullError):
        save_session(document(), tmp_path, FullDisk(0))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_data_folder_is_the_users_own() -> None:
    """Sessions live outside any checkout, in a folder of this suite's name."""
    assert data_folder().name == "gemma3n-perf"
    assert data_folder().is_absolute()
