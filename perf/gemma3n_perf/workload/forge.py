"""Forging: seeded weights in the released architecture, so that decode does the same work without a model hub.

Opinion: the bytes matter, not the text they produce. Every value comes from integer arithmetic and one
exact float32 product, so two machines forge the same files. Scales keep activations finite through all
layers, and layer outputs outweigh the token's own embedding, so greedy decoding does not repeat itself.
"""

import hashlib
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import msgspec
import numpy as np

from gemma3n_perf.errors import CorruptCheckpointError, DiskFullError, UsageError
from gemma3n_perf.workload import safetensors_header, skeleton
from gemma3n_perf.workload.presets import Preset

SHARD_BYTES = 1 << 30
CHUNK_BYTES = 1 << 24
_DTYPES = {"uint32": "U32", "float32": "F32", "bfloat16": "BF16"}
_DENSE_RMS = 2.0**-7 * math.sqrt((256**2 - 1) / 12)
_NIBBLE_RMS = math.sqrt((16**2 - 1) / 12)
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class _Fill:
    """How one tensor is filled: ``constant`` everywhere, or symmetric noise of root mean square ``rms``."""

    constant: float | None = None
    rms: float = 0.0


def _fan_in(tensor: skeleton.Tensor, bits: int | None) -> int:
    width = math.prod(tensor.shape[1:]) if len(tensor.shape) == 4 else tensor.shape[-1]
    return width * (32 // bits) if bits and tensor.dtype == "uint32" else width


_GAIN = {
    "altup_projections": 1.0,
    "prediction_coefs": 0.1,
    "correction_coefs": 0.1,
    "gate_proj": 1.5,
    "q_norm": 2.0,
    "k_norm": 2.0,
    "post_attention_layernorm": 2.0,
    "post_feedforward_layernorm": 2.0,
    "post_per_layer_input_norm": 0.5,
    "gamma": 0.1,
}
"""Factors on the default fill, by a word of the tensor's name; others take 1."""


def _fill(tensor: skeleton.Tensor, weights: dict[str, skeleton.Tensor], bits: int | None) -> _Fill:
    gain = next((value for word, value in _GAIN.items() if f".{word}." in f"{tensor.name}."), 1.0)
    kind = tensor.name.rpartition(".")[2]
    if kind in ("scales", "biases"):
        weight = weights[f"{tensor.name.rpartition('.')[0]}.weight"]
        scale = gain / math.sqrt(_fan_in(weight, bits)) / _NIBBLE_RMS
        return _Fill(constant=scale if kind == "scales" else -7.5 * scale)
    if len(tensor.shape) == 1:
        return _Fill(constant=0.0 if kind in ("bias", "per_dim_scale") else gain)
    return _Fill(rms=gain / math.sqrt(_fan_in(tensor, bits)))


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits: np.ndarray = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded: np.ndarray = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype("<u2")


def _encode(values: np.ndarray, dtype: str) -> np.ndarray:
    return _to_bfloat16(values) if dtype == "bfloat16" else values.astype("<f4")


def _chunks(tensor: skeleton.Tensor, fill: _Fill, seed: int) -> Iterator[bytes]:
    """The tensor's bytes in pieces of at most CHUNK_BYTES. The stream depends on seed and name alone."""
    if fill.constant is not None:
        item = _encode(np.array([fill.constant], dtype=np.float32), tensor.dtype).tobytes()
        for begin in range(0, tensor.nbytes, CHUNK_BYTES):
            yield item * ((min(CHUNK_BYTES, tensor.nbytes - begin)) // len(item))
        return
    name = hashlib.sha256(f"{seed}:{tensor.name}".encode()).digest()
    noise = np.random.SFC64(int.from_bytes(name[:16], "little"))
    # Bytes -> 256 symmetric levels: a table look-up, exact on every machine.
    step = np.float32(fill.rms / (_DENSE_RMS * 128))
    table = _encode((np.arange(256, dtype=np.float32) - np.float32(127.5)) * step, tensor.dtype)
    for begin in range(0, tensor.nbytes, CHUNK_BYTES):
        size = min(CHUNK_BYTES, tensor.nbytes - begin)
        wanted = size if tensor.dtype == "uint32" else size // table.itemsize
        raw = noise.random_raw(-(-wanted // 8)).astype("<u8", copy=False).view(np.uint8)[:wanted]
        yield raw.tobytes() if tensor.dtype == "uint32" else table[raw].tobytes()


def _stored(preset: Preset) -> list[skeleton.Tensor]:
    found = skeleton.tensors(skeleton.build(preset.config()))
    return found if preset.towers else [t for t in found if t.name.startswith("language_model.")]


def _plan(found: list[skeleton.Tensor]) -> list[list[skeleton.Tensor]]:
    groups: list[list[skeleton.Tensor]] = [[]]
    size = 0
    for tensor in found:
        if groups[-1] and size + tensor.nbytes > SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.nbytes
    return groups


def _write_shard(
    path: Path, group: list[skeleton.Tensor], fills: dict[str, _Fill], seed: int, progress: Progress, stop: Event
) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for tensor in group:
        header[tensor.name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (offset, offset + tensor.nbytes),
        }
        offset += tensor.nbytes
    raw = msgspec.json.encode(header)
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for tensor in group:
            for chunk in _chunks(tensor, fills[tensor.name], seed):
                if stop.is_set():
                    return
                file.write(chunk)
                progress(len(chunk))
        file.flush()
        os.fsync(file.fileno())


def size(preset: Preset) -> int:
    """Bytes that the preset's weights take on disk."""
    return sum(tensor.nbytes for tensor in _stored(preset))


def make_root(root: Path) -> None:
    """Create the folder for checkpoints. Raises UsageError where that cannot be."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13), str(root))
    except OSError as error:
        raise UsageError(
            f"{root} cannot hold checkpoints: {error.strerror}",
            expected="a folder that can be made and written to",
            remedy="set GEMMA3N_PERF_CACHE, or pass --root, to another folder",
        ) from error


_SPARE = 64 << 20


def _room(parent: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed + _SPARE:
        raise DiskFullError(
            f"{parent} has {free / 1e6:,.0f} MB free",
            expected=f"{(needed + _SPARE) / 1e6:,.0f} MB for {name}",
            remedy="free some room, or set GEMMA3N_PERF_CACHE to a folder on another disk",
        )


def forge(preset: Preset, root: Path, *, force: bool = False, workers: int | None = None, progress: Progress) -> Path:
    """Write ``preset`` under ``root`` and return its directory; a finished one is left as it is unless ``force``.

    Atomic: files are written beside the target and renamed as one folder, so an interrupt, a crash or a full
    disk (DiskFullError) leaves what was there before. ``progress`` receives bytes written.
    """
    target = root / preset.directory
    if is_forged(preset, root) and not force:
        return target
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is in the way", expected="a folder, or nothing", remedy="move it away")
    make_root(root)
    found = _stored(preset)
    needed = sum(tensor.nbytes for tensor in found)
    _room(root, needed, preset.name)
    weights = {tensor.name: tensor for tensor in found}
    fills = {tensor.name: _fill(tensor, weights, preset.bits) for tensor in found}
    groups = _plan(found)
    stop = Event()
    partial = Path(tempfile.mkdtemp(prefix=f".{preset.directory}.", suffix=".partial", dir=root))
    try:
        names = [f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors" for i in range(len(groups))]
        with ThreadPoolExecutor(workers or min(len(groups), os.cpu_count() or 1)) as pool:
            jobs = [
                pool.submit(_write_shard, partial / name, group, fills, preset.seed, progress, stop)
                for name, group in zip(names, groups, strict=True)
            ]
            try:
                for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                    job.result()
            except BaseException:
                stop.set()  # an interrupt must not wait for gigabytes that nobody wants any more
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        weight_map = {t.name: name for name, group in zip(names, groups, strict=True) for t in group}
        index = {"metadata": {"total_size": needed}, "weight_map": weight_map}
        _write_json(partial / "model.safetensors.index.json", index)
        _write_json(partial / "config.json", preset.config())
        partial.chmod(0o755)
        _replace(partial, target)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise DiskFullError(
                f"the disk filled up while {preset.name} was forged into {root}",
                expected=f"{needed / 1e9:.1f} GB",
                remedy="free some room, or set GEMMA3N_PERF_CACHE to a folder on another disk",
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_json(path: Path, value: object) -> None:
    with path.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(value)))
        file.flush()
        os.fsync(file.fileno())


def _replace(partial: Path, target: Path) -> None:
    old = None
    if target.exists():
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if old is not None:
            old.rename(target)
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def is_forged(preset: Preset, root: Path) -> bool:
    """Whether ``root`` holds this preset, whole, from this format and seed."""
    target = root / preset.directory
    try:
        config = msgspec.json.decode((target / "config.json").read_bytes())
        whole = config == msgspec.json.decode(msgspec.json.encode(preset.config()))
        stored = sum(t.nbytes for path in safetensors_header.shards(target) for t in safetensors_header.read(path))
    except (OSError, msgspec.MsgspecError, CorruptCheckpointError):
        return False
    return whole and stored == size(preset)
