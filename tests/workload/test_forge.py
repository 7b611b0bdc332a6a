import errno
import hashlib
import itertools
import os
import re
import shutil
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemma3n_perf.errors import DiskFullError, NotMeasuredError, UsageError
from gemma3n_perf.workload import forge, safetensors_header, weights
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from tests.decode.fakes import INDEX, SHARD

NANO = PRESETS["nano"]
GOLDEN = {
    "chat_template.jinja": "b31fa1bf001d4cb53ae024c477409cdc8a91657ca005af125462050161d32a5e",
    "config.json": "fa27ec3dc476b94a87e9aacb0a61e293f202bed49abfb77b126dc766a8f696ac",
    "generation_config.json": "3ad3d4a89cae7d42d37861360667940aa65182b9b11c4f2c4e7a941ed4a66136",
    SHARD: "5a5adc858baf7c2fc485f561c2ad0476e2b6d9a34b3f3e3dcfd2a72aa9e98400",
    INDEX: "eeec5880707a41a5e807b051501563ea91f610845c5ed29b74d315b407717d3f",
    "preprocessor_config.json": "1a014826429f8a6daba370af8a8ff35335b1e518bc6599f711a484514df389c0",
    "processor_config.json": "a40cb7ada598e51c3fa230f1913f4883dce79c4ad888d3aa7980512062d2b0ff",
    "tokenizer.json": "a5bec0b0fc73be58cd94fc1b41f1919ccf47fd062599a01da603e5fc176ebce0",
    "tokenizer_config.json": "d097a708c891fe10ba34a62bb0c4a832ee3e367572e03bd947109d2289a7341b",
}


def nothing(written: int) -> None:
    """Show no progress."""


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def failing(error: BaseException, after: int) -> forge.Progress:
    """Return a progress callback that raises at its call number ``after``."""
    calls: Iterator[int] = iter(range(1, 1 << 30))

    def progress(written: int) -> None:
        if next(calls) >= after:
            raise error

    return progress


def test_every_machine_forges_the_same_bytes(nano_root: Path) -> None:
    """The digests are pinned; whoever changes the bytes on purpose raises presets.FORMAT and pins new ones."""
    assert NANO.directory == "nano-v2"
    assert digests(nano_root / NANO.directory) == GOLDEN


def test_forging_twice_gives_the_same_bytes_in_under_five_seconds(tmp_path: Path, nano_root: Path) -> None:
    """Neither the folder nor the number of writers shows in the files."""
    begin = time.monotonic()
    made = forge.forge(NANO, tmp_path / "a" / "b", workers=2, progress=nothing)
    assert time.monotonic() - begin < 5
    assert digests(made) == digests(nano_root / NANO.directory)


def test_another_seed_gives_other_bytes(tmp_path: Path, nano_root: Path) -> None:
    """The noise comes from the seed."""
    made = forge.forge(replace(NANO, seed=1), tmp_path, progress=nothing)
    assert digests(made)[SHARD] != digests(nano_root / NANO.directory)[SHARD]


def test_progress_adds_up_to_the_size(tmp_path: Path) -> None:
    """A progress bar ends at 100 %."""
    written: list[int] = []
    forge.forge(NANO, tmp_path, progress=written.append)
    assert sum(written) == forge.size(NANO)


def test_a_finished_checkpoint_is_left_alone(tmp_path: Path) -> None:
    """Without force, nothing is written again; with it, everything."""
    made = forge.forge(NANO, tmp_path, progress=nothing)
    before = (made / SHARD).stat().st_ino
    notes: list[str] = []
    assert not forge.ensure_forged(NANO, tmp_path, notes.append)
    assert not notes
    assert (made / SHARD).stat().st_ino == before
    assert forge.ensure_forged(NANO, tmp_path, notes.append, force=True)
    assert notes[-1] == "forging nano: 0.0 of 0.0 GB"
    assert (made / SHARD).stat().st_ino != before


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    """An error or Ctrl-C in the middle leaves neither a target nor a partial folder."""
    with pytest.raises(type(error)):
        forge.forge(NANO, tmp_path, progress=failing(error, after=100))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_good_checkpoint_survives_a_failed_force(tmp_path: Path, error: BaseException) -> None:
    """The new files take the old ones' place only once they are whole."""
    made = forge.forge(NANO, tmp_path, progress=nothing)
    with pytest.raises((type(error), DiskFullError)):
        forge.forge(NANO, tmp_path, progress=failing(error, after=100))
    assert digests(made) == GOLDEN
    assert [path.name for path in tmp_path.iterdir()] == [NANO.directory]


def test_a_good_checkpoint_survives_a_failed_swap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the new folder cannot take its place, the old one returns to it."""
    made = forge.forge(NANO, tmp_path, progress=nothing)
    rename = Path.rename

    def failing_rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(OSError, match="Input/output error"):
        forge.forge(NANO, tmp_path, progress=nothing)
    assert digests(made) == GOLDEN
    assert [path.name for path in tmp_path.iterdir()] == [NANO.directory]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named(tmp_path: Path, code: int) -> None:
    """The error says how much room is needed and where else to forge."""
    with pytest.raises(DiskFullError, match="the disk filled up while nano was forged") as caught:
        forge.forge(NANO, tmp_path, progress=failing(OSError(code, os.strerror(code)), after=50))
    assert caught.value.expected == "0.0 GB"
    assert "GEMMA3N_PERF_CACHE" in str(caught.value.remedy)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_at_the_last_flush_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Delayed allocation tells of a full disk only when the file is flushed."""
    monkeypatch.setattr(os, "fsync", failing(OSError(errno.ENOSPC, "full"), after=1))
    with pytest.raises(DiskFullError):
        forge.forge(NANO, tmp_path, progress=nothing)
    assert list(tmp_path.iterdir()) == []


def test_another_fault_of_the_disk_is_not_called_full(tmp_path: Path) -> None:
    """EIO stays what it is."""
    with pytest.raises(OSError, match="broken") as caught:
        forge.forge(NANO, tmp_path, progress=failing(OSError(errno.EIO, "broken"), after=50))
    assert caught.value.errno == errno.EIO
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """e4b-bf16 needs 15.7 GB and some to spare."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(20 * 10**9, 5 * 10**9, 15 * 10**9))
    with pytest.raises(DiskFullError, match=r"has 15,000 MB free") as caught:
        forge.forge(PRESETS["e4b-bf16"], tmp_path, progress=failing(AssertionError("it wrote"), after=1))
    assert caught.value.expected == "15,767 MB for e4b-bf16"
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the folder should be is the user's to move."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot hold checkpoints") as caught:
        forge.forge(NANO, tmp_path / "file" / "below", progress=nothing)
    assert "--into" in str(caught.value.remedy)


def test_a_root_that_takes_no_file_is_named(tmp_path: Path) -> None:
    """Root may write everywhere, it is said, and in /proc nobody can: forging waited there for ever."""
    root = Path("/proc") if sys.platform == "linux" else Path("/dev")
    with pytest.raises(UsageError, match="cannot hold checkpoints"):
        forge.ensure_forged(NANO, root)


def test_a_cache_that_is_no_folder_is_a_fault_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody requested it, so that nothing is measured: exit 4."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEMMA3N_PERF_CACHE", str(tmp_path / "file"))
    with pytest.raises(NotMeasuredError, match="cannot hold checkpoints") as caught:
        forge.ensure_forged(NANO, checkpoints_root())
    assert "GEMMA3N_PERF_CACHE" in str(caught.value.remedy)


def test_what_is_in_the_way_is_never_removed(tmp_path: Path) -> None:
    """A file or a link where the checkpoint belongs is somebody's."""
    (tmp_path / NANO.directory).write_text("mine")
    with pytest.raises(UsageError, match="is in the way"):
        forge.forge(NANO, tmp_path, progress=nothing)
    assert (tmp_path / NANO.directory).read_text() == "mine"


def truncate_a_byte(folder: Path) -> None:
    """Truncate the weights by one byte."""
    os.truncate(folder / SHARD, (folder / SHARD).stat().st_size - 1)


def lose_the_shard(folder: Path) -> None:
    """Remove the weights."""
    (folder / SHARD).unlink()


def lose_the_index(folder: Path) -> None:
    """Remove the index."""
    (folder / INDEX).unlink()


def change_the_config(folder: Path) -> None:
    """Write a config of other dimensions."""
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"hidden_size": 256', '"hidden_size": 257', 1))


def break_the_config(folder: Path) -> None:
    """Write a config that is no text."""
    (folder / "config.json").write_bytes(b'{"a": "\xff')


def make_the_config_a_pipe(folder: Path) -> None:
    """Put a file there that no reader ends with."""
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def empty_the_folder(folder: Path) -> None:
    """Leave the folder, and nothing in it."""
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES = [truncate_a_byte, empty_the_folder, lose_the_shard, lose_the_index, change_the_config, break_the_config]


@pytest.mark.parametrize("damage", [*DAMAGES, make_the_config_a_pipe, shutil.rmtree])
def test_a_damaged_checkpoint_is_not_forged_and_is_forged_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Damage is noticed from headers and sizes, and healed without force."""
    made = forge.forge(NANO, tmp_path, progress=nothing)
    assert forge.is_forged(NANO, tmp_path)
    damage(made)
    assert not forge.is_forged(NANO, tmp_path)
    assert forge.ensure_forged(NANO, tmp_path)
    assert digests(made) == GOLDEN


def test_every_caller_ensures_in_one_way() -> None:
    """Commands, plugin and history call ``ensure_forged``, which locks and notices damage; none decides for itself."""
    package = Path(forge.__file__).parents[1]
    others = [path for path in package.rglob("*.py") if path.parent.name != "workload"]
    for path in others:
        assert not re.search(r"\bforge\.is_forged\(|\bforge\.forge\(", path.read_text()), path
    assert len([path for path in others if "ensure_forged(" in path.read_text()]) >= 4


def test_large_checkpoints_are_split_and_a_failure_stops_every_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards hold every tensor once, and after a failure no writer goes on for long."""
    monkeypatch.setattr(forge, "SHARD_BYTES", 1 << 19)
    made = forge.forge(NANO, tmp_path / "whole", progress=nothing)
    shards = safetensors_header.shards(made)
    assert len(shards) > 4
    names = [tensor.name for shard in shards for tensor in safetensors_header.read(shard)]
    assert len(names) == len(set(names))
    assert sum(t.nbytes for shard in shards for t in safetensors_header.read(shard)) == forge.size(NANO)

    written: list[int] = []
    numbers = itertools.count(1)

    def progress(size: int) -> None:
        # Counted by one who cannot be overtaken: four writers append between any two lines of this.
        number = next(numbers)
        written.append(size)
        time.sleep(0.001 if number < 20 else 0.05)
        if number == 20:
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(DiskFullError):
        forge.forge(NANO, tmp_path / "full", workers=4, progress=progress)
    assert len(written) < 60
    assert list((tmp_path / "full").iterdir()) == []


def test_bfloat16_rounds_to_nearest_even() -> None:
    """The forged bits are those MLX would cast to."""
    import mlx.core as mx

    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    assert (
        weights._to_bfloat16(values).tolist()
        == np.asarray(mx.array(values).astype(mx.bfloat16).view(mx.uint16)).tolist()
    )
