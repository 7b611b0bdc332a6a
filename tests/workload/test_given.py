import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.errors import CorruptCheckpointError, UsageError
from gemma3n_perf.pytest_plugin.options import sources
from gemma3n_perf.workload import given


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_checkpoint_that_would_be_read_for_ever_is_refused(tmp_path: Path, name: str) -> None:
    """By all that take one: nothing waits for a pipe."""
    folder = tmp_path / "mine"
    folder.mkdir()
    os.mkfifo(folder / name)
    with pytest.raises(CorruptCheckpointError, match=f"{name} in .*mine is no regular file"):
        given.locate(str(folder), tmp_path)
    options: Any = SimpleNamespace(root=tmp_path, checkpoints=(str(folder),))
    with pytest.raises(CorruptCheckpointError):
        sources(options)


def test_commands_name_it(tmp_path: Path) -> None:
    """With the exit code of a checkpoint that cannot be used."""
    (tmp_path / "config.json").mkdir()
    err = io.StringIO()
    assert program.run(["graph", str(tmp_path)], io.StringIO(), err) == 5
    assert "config.json in" in err.getvalue()


def test_links_to_files_are_files(tmp_path: Path) -> None:
    """As the hub's cache lays them out; a link to nothing is said by whoever reads it."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "blob").write_text("{}")
    (tmp_path / "mine" / "config.json").symlink_to(tmp_path / "blob")
    (tmp_path / "mine" / "tokenizer.json").symlink_to(tmp_path / "gone")
    assert given.locate(str(tmp_path / "mine"), tmp_path) == ("mine", tmp_path / "mine")


def test_a_folder_that_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    """Workers are told where it is, in text."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with pytest.raises(UsageError, match="is not UTF-8"):
        given.locate(str(folder), tmp_path)
