import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import CorruptCheckpointError
from gemma3n_perf.workload.safetensors_header import digest, read, shards
from gemma3n_perf.workload.skeleton import Tensor
from tests.decode.fakes import INDEX, SHARD, edit_config, edit_header

GOOD: dict[str, dict[str, Any]] = {
    "__metadata__": {"format": "mlx"},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]},
    "a": {"dtype": "U32", "shape": [2, 3], "data_offsets": [8, 32]},
    "none": {"dtype": "F32", "shape": [0, 3], "data_offsets": [32, 32]},
    "one": {"dtype": "F32", "shape": [], "data_offsets": [32, 36]},
}


def written(path: Path, header: Any, data: bytes = bytes(36), *, length: int | None = None) -> Path:
    """Write a safetensors file, its header given as JSON or as raw bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def test_a_header_is_read(tmp_path: Path) -> None:
    """Tensors come with MLX's type names, shapes and sizes, scalars and empty ones too."""
    assert sorted(read(written(tmp_path / "m.safetensors", GOOD)), key=lambda tensor: tensor.name) == [
        Tensor("a", "uint32", (2, 3), 24),
        Tensor("b", "bfloat16", (4,), 8),
        Tensor("none", "float32", (0, 3), 0),
        Tensor("one", "float32", (), 4),
    ]


def test_mlx_reads_the_same(nano_root: Path) -> None:
    """Names, types and shapes agree with what MLX itself loads."""
    import mlx.core as mx

    path = nano_root / "nano-v2" / SHARD
    loaded: Any = mx.load(str(path))
    mine = {tensor.name: (tensor.dtype, tensor.shape, tensor.nbytes) for tensor in read(path)}
    assert mine == {name: (str(a.dtype)[len("mlx.core.") :], a.shape, a.nbytes) for name, a in loaded.items()}


@pytest.mark.parametrize("kept", [0, 5, 8, 20, -1])
@pytest.mark.parametrize(
    ("name", "remedy"), [("nano-v2", "gemma3n-perf forge nano --force"), ("mine", "fetch the checkpoint again")]
)
def test_a_truncated_file_is_named(tmp_path: Path, kept: int, name: str, remedy: str) -> None:
    """Wherever it is cut, the error names file and folder, and says how to get it again."""
    (tmp_path / name).mkdir()
    path = written(tmp_path / name / "m.safetensors", GOOD)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptCheckpointError) as caught:
        read(path)
    assert caught.value.found.startswith(f"m.safetensors in {tmp_path / name}: ")
    assert caught.value.expected
    assert caught.value.remedy == remedy


def test_a_byte_too_many_is_named(tmp_path: Path) -> None:
    """The file must end where its header says."""
    path = written(tmp_path / "m.safetensors", GOOD, bytes(37))
    size = path.stat().st_size
    with pytest.raises(CorruptCheckpointError, match=f"the file has {size} bytes") as caught:
        read(path)
    assert caught.value.expected == f"{size - 1} bytes by its own header"


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 100_000, 37 + 500])
def test_a_header_longer_than_the_file_is_refused_unread(tmp_path: Path, length: int) -> None:
    """A length of exabytes allocates nothing."""
    with pytest.raises(CorruptCheckpointError, match=f"its header claims {length} bytes"):
        read(written(tmp_path / "m.safetensors", GOOD, length=length))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x00\xff\xfe garbage",
        b"[]",
        b"null",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}}',
        b'{"a\xff": {}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_off',
    ],
)
def test_a_garbage_header_is_named(tmp_path: Path, header: bytes) -> None:
    """Neither JSON of another form nor plain bytes get further than the header."""
    with pytest.raises(CorruptCheckpointError, match="its header does not parse"):
        read(written(tmp_path / "m.safetensors", header))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_offsets": [8, 28]}, r"tensor a of type U32 and shape \[2, 3\] spans 20 bytes"),
        ({"shape": [2, 4]}, r"shape \[2, 4\] spans 24 bytes"),
        ({"dtype": "BF16"}, "type BF16"),
        ({"dtype": "Q7"}, "type Q7"),
        ({"data_offsets": [0, 24]}, "the data of a begins at byte 0"),
        ({"data_offsets": [12, 36]}, "the data of a begins at byte 12"),
        ({"data_offsets": [-16, 8]}, "the data of a begins at byte -16"),
        ({"data_offsets": [8, 1 << 70]}, "spans|does not parse|beyond reason"),
    ],
)
def test_a_header_that_lies_about_offsets_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Sizes that do not fit, gaps and overlaps would each let another tensor's bytes be read."""
    header = GOOD | {"a": {**GOOD["a"], **change}}
    with pytest.raises(CorruptCheckpointError, match=message):
        read(written(tmp_path / "m.safetensors", header))


def test_shards_without_an_index_are_found_by_name(tmp_path: Path) -> None:
    """A small checkpoint needs no index; other files are not taken."""
    for name in ("b.safetensors", "a.safetensors", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in shards(tmp_path)] == ["a.safetensors", "b.safetensors"]


def test_the_index_decides(nano_copy: Path) -> None:
    """A stray file is not part of the checkpoint."""
    (nano_copy / "stray.safetensors").touch()
    assert [path.name for path in shards(nano_copy)] == [SHARD]


def test_a_missing_shard_is_named(nano_copy: Path) -> None:
    """The error names the file and counts how many are missing."""
    index = json.loads((nano_copy / INDEX).read_text())
    index["weight_map"]["more"] = "model-00002-of-00002.safetensors"
    (nano_copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(CorruptCheckpointError, match=r"^model-00002-of-00002\.safetensors in") as caught:
        shards(nano_copy)
    assert "1 of 2 weight files are missing" in caught.value.found


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    """An empty folder is no checkpoint."""
    with pytest.raises(CorruptCheckpointError, match="there are no weight files"):
        shards(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 5}}', "\udcff"])
def test_a_bad_index_is_named(nano_copy: Path, text: str) -> None:
    """Whatever stands in the index instead of a weight_map, the index is named."""
    (nano_copy / INDEX).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(CorruptCheckpointError, match=rf"^{INDEX} in .*it does not parse"):
        shards(nano_copy)


def test_an_index_that_is_a_folder_is_named(nano_copy: Path) -> None:
    """What cannot be read is treated as what does not parse."""
    (nano_copy / INDEX).unlink()
    (nano_copy / INDEX).mkdir()
    with pytest.raises(CorruptCheckpointError, match="it does not parse"):
        shards(nano_copy)


def rename_a_tensor(folder: Path) -> None:
    """Change the header alone."""
    edit_header(folder, lambda header, data: header.update(alien=header.pop("language_model.model.norm.weight")))


def flip(position: int) -> Callable[[Path], None]:
    """Return a change of one byte at a position of the weights file, from its end if negative."""

    def change(folder: Path) -> None:
        with (folder / SHARD).open("r+b") as file:
            file.seek(position, os.SEEK_SET if position >= 0 else os.SEEK_END)
            (byte,) = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))

    return change


def more_layers(folder: Path) -> None:
    """Change the config alone."""
    edit_config(folder, lambda config: config.update(num_hidden_layers=7))


@pytest.mark.parametrize(
    "change", [rename_a_tensor, flip(100), flip(1_000_000), flip(2_000_001), flip(-1), more_layers]
)
def test_the_digest_names_the_bytes(nano_copy: Path, change: Callable[[Path], None]) -> None:
    """A change in the header, in sampled data or in the config gives another digest; none gives the same."""
    before = digest(nano_copy)
    assert digest(nano_copy) == before
    change(nano_copy)
    assert digest(nano_copy) != before


def test_the_digest_samples_the_whole_of_a_large_file(tmp_path: Path) -> None:
    """The samples spread from the first byte to the end, 64 KiB at every 64th of the file."""
    size = 64 * 1_000_000
    header = {"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}
    raw = json.dumps(header).encode()
    (tmp_path / "config.json").write_text("{}")
    with (tmp_path / "m.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + size)
    seen = {digest(tmp_path)}
    for k in (0, 31, 63):
        with (tmp_path / "m.safetensors").open("r+b") as file:
            file.seek(8 + len(raw) + k * 1_000_000 + 65_535)
            file.write(b"\x01")
        seen.add(digest(tmp_path))
    assert len(seen) == 4


@pytest.mark.parametrize(
    "entry", [{"shape": [2**63], "data_offsets": [0, 1]}, {"shape": [9**19] * 5000, "data_offsets": [0, 1]}]
)
def test_dimensions_beyond_reason_are_not_multiplied(tmp_path: Path, entry: dict[str, Any]) -> None:
    """A product of thousands of them takes minutes, and cannot be written."""
    header = json.dumps({"a": {"dtype": "U8", **entry}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"x")
    with pytest.raises(CorruptCheckpointError, match="beyond reason"):
        read(tmp_path / "model.safetensors")
