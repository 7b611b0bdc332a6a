"""Forging: a checkpoint with seeded weights in the released architecture, so that decode needs no model hub.

Opinion: a checkpoint is whole or it is not there. Files are written beside their place and renamed as one folder, and
every caller asks ``ensure_forged``, which finds an empty, truncated or outdated folder and forges it again.
"""

import contextlib
import errno
import os
import shutil
import struct
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import msgspec

from gemma3n_perf.errors import CorruptCheckpointError, DiskFullError, NotMeasuredError, UsageError
from gemma3n_perf.hardware.file_lock import locked
from gemma3n_perf.workload import given, processor, safetensors_header, skeleton, weights
from gemma3n_perf.workload.presets import Preset, checkpoints_root

SHARD_BYTES = 1 << 30
SPARE_BYTES = 64 << 20
LOCK_WAIT_S = 600.0
_DTYPES = {"uint32": "U32", "float32": "F32", "bfloat16": "BF16"}
_DISK_REMEDY = "free some space, or set GEMMA3N_PERF_CACHE to a folder on another disk"
INDEX = "model.safetensors.index.json"
Progress = Callable[[int], None]
Note = Callable[[str], None]


def size(preset: Preset) -> int:
    """Bytes that the preset's weights take on disk."""
    return sum(tensor.nbytes for tensor in _stored(preset, skeleton.build(preset.config())))


def _stored(preset: Preset, model: Any) -> list[skeleton.Tensor]:
    config = preset.config()
    return [tensor for tensor in skeleton.tensors(model) if skeleton.is_stored(tensor.name, config)]


def ensure_forged(preset: Preset, root: Path, note: Note = lambda text: None, *, force: bool = False) -> bool:
    """Forge ``preset`` under ``root`` unless it is there, whole, or ``force``; whether it was forged now.

    A folder that is empty, truncated or of another format is forged again. One process forges at a time, another waits
    for it. ``note`` is given the progress.

    Raises what ``forge`` raises, and MachineBusyError where another process takes longer than 10 minutes.
    """
    if is_forged(preset, root) and not force:
        return False
    make_root(root)
    total, written = size(preset), 0

    def progress(count: int) -> None:
        nonlocal written
        written += count
        note(f"forging {preset.name}: {written / 1e9:.1f} of {total / 1e9:.1f} GB")

    with locked(root / f".{preset.directory}.lock", LOCK_WAIT_S, f"forging {preset.name}"):
        if is_forged(preset, root) and not force:
            return False
        forge(preset, root, progress=progress)
        return True


def is_forged(preset: Preset, root: Path) -> bool:
    """Whether ``root`` holds this preset, whole, from this format and seed. Builds no model."""
    target = root / preset.directory
    expected = preset.config()
    quantization = {key: value for key, value in expected.items() if key.startswith("quantization")}
    try:
        given.require_files(target)
        config = msgspec.json.decode((target / "config.json").read_bytes())
        index = msgspec.json.decode((target / INDEX).read_bytes())
        stored = sum(tensor.nbytes for tensor in safetensors_header.read_all(target))
        # What is written beside the total forge itself adds: an entry for each quantized module.
        return bool({**config, **quantization} == expected and stored == index["metadata"]["total_size"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, CorruptCheckpointError):
        return False


def make_root(root: Path) -> None:
    """Create the folder for checkpoints. Raises UsageError where that cannot be, NotMeasuredError for the cache."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        if not os.access(root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(root))
        with tempfile.TemporaryFile(dir=root):  # root may write anywhere, and in /proc nobody can
            pass
    except OSError as error:
        kind = NotMeasuredError if root == checkpoints_root() else UsageError
        raise kind(
            f"{root} cannot hold checkpoints: {error.strerror}",
            expected="a folder that can be made and written to",
            remedy="set GEMMA3N_PERF_CACHE, or pass --into, to another folder",
        ) from error


def forge(preset: Preset, root: Path, progress: Progress = lambda written: None, *, workers: int | None = None) -> Path:
    """Write ``preset`` under ``root``, in place of what is there, and return its folder. ``progress`` is given bytes.

    Files are written beside the target and renamed as one folder, so an interrupt, a crash or a full disk leaves what
    was there before. Raises DiskFullError, and UsageError for a root or a target that cannot be written.
    """
    target = root / preset.directory
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is in the way", expected="a folder, or nothing", remedy="move it away")
    make_root(root)
    model = skeleton.build(preset.config())
    stored = _stored(preset, model)
    needed = sum(tensor.nbytes for tensor in stored)
    free = shutil.disk_usage(root).free
    if free < needed + SPARE_BYTES:
        raise DiskFullError(
            f"{root} has {free / 1e6:,.0f} MB free",
            expected=f"{(needed + SPARE_BYTES) / 1e6:,.0f} MB for {preset.name}",
            remedy=_DISK_REMEDY,
        )
    partial = Path(tempfile.mkdtemp(prefix=f".{preset.directory}.", suffix=".partial", dir=root))
    try:
        weight_map = _write_weights(partial, preset, stored, progress, workers)
        index = {"metadata": {"total_size": needed}, "weight_map": weight_map}
        config = preset.config()
        entries = {p: q for p, q in skeleton.quantized(model).items() if skeleton.is_stored(p, config)}
        for key in ("quantization", "quantization_config"):
            if key in config:
                config[key] = config[key] | entries | config[key]  # its own entries win, and keep their place
        texts = {"config.json": processor.pretty(config), INDEX: processor.pretty(index)}
        for name, text in (texts | processor.files(config)).items():
            with (partial / name).open("wb") as file:
                _finish(file, text)
        partial.chmod(0o755)
        _replace(partial, target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"the disk filled up while {preset.name} was forged into {root}",
            expected=f"{needed / 1e9:.1f} GB",
            remedy=_DISK_REMEDY,
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write_weights(
    folder: Path, preset: Preset, stored: list[skeleton.Tensor], progress: Progress, workers: int | None
) -> dict[str, str]:
    """Write the shards, several at a time, and return which tensor is in which."""
    groups: list[list[skeleton.Tensor]] = [[]]
    for tensor in stored:
        if groups[-1] and sum(t.nbytes for t in groups[-1]) + tensor.nbytes > SHARD_BYTES:
            groups.append([])
        groups[-1].append(tensor)
    fills = weights.fills(stored, preset.text)
    shards = {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, start=1)}
    stop = Event()

    def write(name: str) -> None:
        with (folder / name).open("wb") as file:
            file.write(_header(shards[name]))
            for tensor in shards[name]:
                for chunk in weights.chunks(tensor, fills[tensor.name], preset.seed):
                    if stop.is_set():
                        return
                    file.write(chunk)
                    progress(len(chunk))
            _finish(file)

    with ThreadPoolExecutor(workers or min(len(shards), os.cpu_count() or 1)) as pool:
        jobs = [pool.submit(write, name) for name in shards]
        try:
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
        except BaseException:
            stop.set()  # an interrupt must not wait for gigabytes that nobody needs any more
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return {tensor.name: name for name, group in shards.items() for tensor in group}


def _header(group: list[skeleton.Tensor]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for tensor in group:
        span = (offset, offset := offset + tensor.nbytes)
        header[tensor.name] = {"dtype": _DTYPES[tensor.dtype], "shape": tensor.shape, "data_offsets": span}
    raw = msgspec.json.encode(header)
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw


def _finish(file: BinaryIO, text: bytes = b"") -> None:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())


def _replace(partial: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        target.rename(old)
    try:
        partial.rename(target)
    except BaseException:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
