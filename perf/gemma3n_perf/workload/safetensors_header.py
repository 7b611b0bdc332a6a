"""Reading a checkpoint's own safetensors headers, so that damage is named before MLX meets it.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, JSON, data).
The safetensors library finds the same damage, but names neither the tensor nor the sizes that disagree.
"""

import hashlib
import math
import struct
from pathlib import Path

import msgspec

from gemma3n_perf.errors import CorruptCheckpointError
from gemma3n_perf.workload.presets import made_again
from gemma3n_perf.workload.skeleton import Tensor

ITEM_BYTES = {"U32": 4, "F32": 4, "F16": 2, "BF16": 2, "U8": 1, "I32": 4, "I64": 8, "F8_E4M3": 1, "F8_E5M2": 1}
_NAMES = {"U32": "uint32", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "U8": "uint8"}
_MAX_HEADER = 100_000_000
_DIMENSIONS, _MOST = 64, 1 << 63


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def _corrupt(path: Path, found: str, expected: str) -> CorruptCheckpointError:
    return CorruptCheckpointError(
        f"{path.name} in {path.parent}: {found}",
        expected=expected,
        remedy=made_again(path.parent.name.rpartition("-v")[0]),
    )


def read(path: Path) -> list[Tensor]:
    """Tensors of one safetensors file. Raises CorruptCheckpointError where header and file size disagree."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _corrupt(path, f"the file has {size} bytes", "at least the 8 bytes of a safetensors prefix")
        (length,) = struct.unpack("<Q", prefix)
        if length > min(size - 8, _MAX_HEADER):
            raise _corrupt(path, f"its header claims {length} bytes in a file of {size}", "a header inside the file")
        raw = file.read(length)
    try:
        entries = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        entries.pop("__metadata__", None)
        header = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in entries.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _corrupt(path, f"its header does not parse: {error}", "a safetensors header") from error
    tensors = []
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1].data_offsets):
        begin, stop = entry.data_offsets
        if len(entry.shape) > _DIMENSIONS or any(abs(one) >= _MOST for one in (*entry.shape, begin, stop)):
            raise _corrupt(
                path,
                f"the shape or the place of {name} is beyond reason",
                f"{_DIMENSIONS} dimensions at most, below 2^63",
            )
        if begin != end:
            raise _corrupt(path, f"the data of {name} begins at byte {begin}", f"{end}: data without gap or overlap")
        if entry.dtype not in ITEM_BYTES or stop - begin != math.prod(entry.shape) * ITEM_BYTES[entry.dtype]:
            raise _corrupt(
                path,
                f"tensor {name} of type {entry.dtype} and shape {list(entry.shape)} spans {stop - begin} bytes",
                "as many bytes as its shape and type take",
            )
        end = stop
        tensors.append(Tensor(name, _NAMES.get(entry.dtype, entry.dtype.lower()), entry.shape, stop - begin))
    if 8 + length + end != size:
        raise _corrupt(path, f"the file has {size} bytes", f"{8 + length + end} bytes by its own header")
    return tensors


def shards(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in name order. Raises CorruptCheckpointError for missing shards."""
    index = directory / "model.safetensors.index.json"
    found = sorted(directory.glob("*.safetensors"))
    if index.exists():
        try:
            declared = sorted(set(msgspec.json.decode(index.read_bytes(), type=_Index).weight_map.values()))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
            raise _corrupt(index, f"it does not parse: {error}", "a JSON object with a weight_map") from error
        found = [directory / name for name in declared]
    missing = [path.name for path in found if not path.is_file()]
    if missing or not found:
        raise _corrupt(
            directory / (missing[0] if missing else "*.safetensors"),
            f"{len(missing)} of {len(found)} weight files are missing" if missing else "there are no weight files",
            "every file that the index names",
        )
    return found


def read_all(directory: Path) -> list[Tensor]:
    """Tensors of all shards of a checkpoint. Raises CorruptCheckpointError as ``shards`` and ``read`` do."""
    return [tensor for path in shards(directory) for tensor in read(path)]


def digest(directory: Path) -> str:
    """Name the checkpoint's bytes: SHA-256 over config, every header and 64 samples of 64 KiB a file.

    Sampled, because hashing 16 GB takes longer than the measurement: a checkpoint that differs only
    between the samples is not told apart here, which is why greedy tokens are compared as well.
    """
    seen = hashlib.sha256()
    seen.update((directory / "config.json").read_bytes())
    for path in shards(directory):
        size = path.stat().st_size
        seen.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            seen.update(file.read(length))
            for k in range(64):
                file.seek(8 + length + (size - 8 - length) * k // 64)
                seen.update(file.read(65_536))
    return seen.hexdigest()[:32]
