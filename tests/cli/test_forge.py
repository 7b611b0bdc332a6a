import argparse
import io
import threading
import time
from pathlib import Path
from typing import Any

import filelock
import pytest

from gemma3n_perf.cli import forge as command
from gemma3n_perf.errors import DiskFullError, MachineBusyError, UsageError
from gemma3n_perf.workload import forge
from gemma3n_perf.workload.presets import PRESETS, Preset

NANO = PRESETS["nano"]


def run(*arguments: str) -> str:
    """Run the command and return what it prints."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    out = io.StringIO()
    assert command.run(parser.parse_args(arguments), out) == 0
    return out.getvalue()


def test_it_says_where_how_large_and_whether_it_was_there(tmp_path: Path) -> None:
    """One line; the second time nothing is written; with --force it is."""
    where = f"nano: {tmp_path / 'nano-v2'} (0.00 GB, "
    first = run("nano", "--root", str(tmp_path))
    assert first.startswith(f"{where}forged in ")
    written = (tmp_path / "nano-v2" / "config.json").stat().st_ino
    assert run("nano", "--root", str(tmp_path)) == f"{where}already there)\n"
    assert (tmp_path / "nano-v2" / "config.json").stat().st_ino == written
    assert run("nano", "--root", str(tmp_path), "--force").startswith(f"{where}forged in ")
    assert forge.is_forged(NANO, tmp_path)


def test_the_cache_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GEMMA3N_PERF_CACHE moves it."""
    monkeypatch.setenv("GEMMA3N_PERF_CACHE", str(tmp_path / "cache"))
    run("nano")
    assert forge.is_forged(NANO, tmp_path / "cache" / "checkpoints")


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    """Nothing is made for it."""
    with pytest.raises(UsageError, match="there is no preset 'e9b'"):
        run("e9b", "--root", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_root_below_a_file_is_refused(tmp_path: Path) -> None:
    """A named error, not the system's."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot hold checkpoints"):
        run("nano", "--root", str(tmp_path / "file" / "deeper"))


def test_the_lock_is_free_again_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that filled up once does not block the next try."""

    def full(*args: object, **options: object) -> Path:
        raise DiskFullError("full")

    with monkeypatch.context() as patched:
        patched.setattr(forge, "forge", full)
        with pytest.raises(DiskFullError):
            run("nano", "--root", str(tmp_path))
    assert "forged in" in run("nano", "--root", str(tmp_path))


def test_two_that_want_the_same_forge_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first and finds it there."""
    forged: list[str] = []
    real = forge.forge

    def counting(preset: Preset, root: Path, **options: Any) -> Path:
        forged.append(preset.name)
        time.sleep(0.2)
        return real(preset, root, **options)

    monkeypatch.setattr(forge, "forge", counting)
    threads = [threading.Thread(target=forge.ensure_forged, args=(NANO, tmp_path)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert forged == ["nano"]
    assert forge.is_forged(NANO, tmp_path)


def test_a_lock_held_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file to remove."""

    def never(self: filelock.BaseFileLock) -> None:
        raise filelock.Timeout(str(tmp_path / ".nano-v2.lock"))

    monkeypatch.setattr(filelock.FileLock, "__enter__", never)
    with pytest.raises(MachineBusyError, match="has been forging nano") as caught:
        forge.ensure_forged(NANO, tmp_path)
    assert ".nano-v2.lock" in str(caught.value.remedy)
