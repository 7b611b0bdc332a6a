"""From a name to a model in memory, through mlx-vlm's own loader, with every kind of damage named first."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from gemma3n_perf.errors import (
    CheckpointMissingError,
    CorruptCheckpointError,
    OutOfMemoryError,
    UsageError,
)
from gemma3n_perf.workload import memory, safetensors_header, skeleton
from gemma3n_perf.workload.finite import require_finite
from gemma3n_perf.workload.presets import PRESETS

_COMMIT = re.compile("[0-9a-f]{40}")
_SNAPSHOT = re.compile("/models--(?:[^/]+?--)?([^/]+)/snapshots/([0-9a-f]{40})$")  # as huggingface_hub lays them out


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk that passed inspection. ``bytes`` by part, as ``skeleton.bytes_by_part`` gives them."""

    name: str
    path: Path
    config: dict[str, Any]
    digest: str
    bytes: dict[str, int]

    @property
    def has_vision(self) -> bool:
        """Whether it stores a vision tower."""
        return self.bytes["vision"] > 0

    @property
    def max_positions(self) -> int:
        """Longest sequence that the model was made for, tokens."""
        return int(self.config["text_config"].get("max_position_embeddings", 32_768))


def locate(name: str, root: Path) -> tuple[str, Path]:
    """Find a checkpoint: a forged preset, a folder, or a hub id with a pinned revision (``org/model@REVISION``).

    Returns its short name, as used in workload ids, and its folder; a folder of the hub's cache is named as its id is.
    Raises CheckpointMissingError with the command that gets it, UsageError for a hub id without a commit.
    """
    if name in PRESETS:
        path = root / PRESETS[name].directory
        if not path.is_dir():
            raise CheckpointMissingError(
                f"the checkpoint {name} is not forged on this machine",
                expected=f"a folder {path}",
                remedy=f"gemma3n-perf forge {name}",
            )
        return name, path
    # os.path and not pathlib, which raises for an unknown user and for a name too long.
    path = Path(os.path.expanduser(name))
    if name and os.path.isdir(path):
        path = path.resolve()
        snapshot = _SNAPSHOT.search(path.as_posix())
        return (_named(*snapshot.groups()) if snapshot else _slug(path.name)), path
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise UsageError(
            f"there is no checkpoint {name!r}",
            expected=f"a preset ({', '.join(PRESETS)}), a folder, or ORG/MODEL@REVISION",
        )
    if not _COMMIT.fullmatch(revision):
        raise UsageError(
            f"{name} names no {'commit' if revision else 'revision'}",
            expected="a pinned revision, 40 hexadecimal digits: a branch or tag moves, and a moved checkpoint is "
            "another workload",
            remedy=f"give {repository}@COMMIT, as the hub lists it under Files, History",
        )
    return _named(repository.partition("/")[2], revision), _download(repository, revision)


def _named(model: str, commit: str) -> str:
    return _slug(f"{model}-{commit[:8]}")


def _slug(text: str) -> str:
    return (
        "".join(c if (c.isascii() and c.isalnum()) or c in "._-" else "-" for c in text.lower()).strip("-._")
        or "checkpoint"
    )


def _download(repository: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt"]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated types
        last = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CheckpointMissingError(
            f"{repository} at {revision} cannot be had: {type(error).__name__}: {last}",
            expected="a repository and revision on the hub, reachable or in its local cache",
            remedy="check the name, the network and HF_HUB_OFFLINE, or give a folder",
        ) from error


def inspect(name: str, root: Path) -> Checkpoint:
    """Check config and headers against what mlx-vlm's model needs, reading no weights.

    Raises CorruptCheckpointError naming the file or tensor, CheckpointMissingError, UsageError.
    """
    short, path = locate(name, root)
    stored = _stored(path)
    config = _as_stored(_read_config(path), stored)
    _agrees(skeleton.build(config), stored, path)
    sizes = skeleton.bytes_by_part(stored, config["text_config"])
    return Checkpoint(short, path, config, safetensors_header.digest(path), sizes)


def streamed_bytes(name: str, root: Path) -> int:
    """Bytes of weights that one text token reads, by a checkpoint's headers alone. Raises as ``inspect`` does."""
    path = locate(name, root)[1]
    return skeleton.bytes_by_part(_stored(path), _read_config(path)["text_config"])["streamed"]


def needed_bytes(name: str, root: Path, *, with_towers: bool) -> int:
    """Bytes of weights that decode keeps in memory, by a checkpoint's headers alone. Raises as ``inspect`` does."""
    path = locate(name, root)[1]
    return memory.needed(skeleton.bytes_by_part(_stored(path), _read_config(path)["text_config"]), with_towers)


def takes_images(name: str, root: Path) -> bool:
    """Whether a checkpoint has a vision tower, or is forged, which has soft tokens instead. Raises as ``inspect``."""
    if name in PRESETS:
        return True
    path = locate(name, root)[1]
    return is_forged(_read_config(path)) or any(one.name.startswith("vision_tower.") for one in _stored(path))


def _stored(path: Path) -> list[skeleton.Tensor]:
    return [replace(tensor, name=_canonical_name(tensor.name)) for tensor in safetensors_header.read_all(path)]


def is_forged(config: dict[str, Any]) -> bool:
    """Whether a checkpoint of this config was made by ``gemma3n-perf forge``."""
    return bool(config.get("gemma3n_perf"))


def config_of(name: str, root: Path) -> dict[str, Any]:
    """The config of a checkpoint; a preset's needs no files. Raises what ``inspect`` raises for a bad config."""
    if name in PRESETS:
        return PRESETS[name].config()
    path = locate(name, root)[1]
    return _as_stored(_read_config(path), _stored(path) if any(path.glob("*.safetensors")) else [])


def _as_stored(config: dict[str, Any], stored: list[skeleton.Tensor]) -> dict[str, Any]:
    """``config`` with the parts ``stored``, and an entry for each module that was left dense without a word there."""
    names, quantization = {tensor.name for tensor in stored}, config.get("quantization")
    if stored:
        config = config | {"stored": sorted({name.partition(".")[0] for name in names})}
    if not isinstance(quantization, dict):
        return config
    dense = {name[:-7] for name in names if name.endswith(".weight") and f"{name[:-7]}.scales" not in names}
    return config | {"quantization": dict.fromkeys(sorted(dense), False) | quantization}


def _read_config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    try:
        config: dict[str, Any] = msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        raise CorruptCheckpointError(
            f"{path} has no config.json", expected="a checkpoint folder", remedy="give the folder that holds it"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise CorruptCheckpointError(
            f"{file} does not parse: {error}", expected="a JSON object", remedy="fetch it again"
        ) from error
    skeleton.check(config)
    return config


def _canonical_name(name: str) -> str:
    # Hugging Face's own files say model.language_model.layers; mlx-vlm says language_model.model.layers.
    name = name.removeprefix("model.")
    if name.startswith("language_model.") and not name.startswith("language_model.model."):
        name = name.replace("language_model.", "language_model.model.", 1)
    return name


def _agrees(model: Any, stored: list[skeleton.Tensor], path: Path) -> None:
    needed = {t.name: t for t in skeleton.tensors(model) if t.name.startswith("language_model.")}
    have = {t.name: t for t in stored}
    missing = sorted(needed.keys() - have.keys())
    if missing:
        raise CorruptCheckpointError(
            f"{path} lacks {len(missing)} of the {len(needed)} tensors of the language model, first {missing[0]}",
            expected="every tensor that config.json's dimensions and quantization call for",
            remedy="fetch the checkpoint again, or correct config.json",
        )
    wrong = sorted(name for name, tensor in needed.items() if _kind(have[name]) != _kind(tensor))
    if wrong:
        name = wrong[0]
        raise CorruptCheckpointError(
            f"{path}: {name} is {have[name].dtype} of shape {list(have[name].shape)} ({len(wrong)} tensors differ)",
            expected=f"{needed[name].dtype} of shape {list(needed[name].shape)} by config.json",
            remedy="fetch the checkpoint again, or correct config.json",
        )


def _kind(tensor: skeleton.Tensor) -> tuple[bool, tuple[int, ...]]:
    # Packed weights are integers; the others may come in any floating-point type.
    return tensor.dtype == "uint32", tensor.shape


def load(checkpoint: Checkpoint, *, with_towers: bool) -> Any:
    """Load with mlx-vlm and evaluate the weights that will be used; towers stay on disk unless ``with_towers``.

    On a CPU floating-point weights become float32: MLX's CPU kernels run 4-bit bf16 about 7 times slower.
    Raises NonFiniteError for NaN or infinite weights, OutOfMemoryError, CorruptCheckpointError.
    """
    import mlx.core as mx

    memory.require(checkpoint.name, memory.needed(checkpoint.bytes, with_towers))
    try:
        model = _loaded(checkpoint)
        used = model.language_model if not with_towers else model
        mx.eval(used.parameters())
        require_finite(used, checkpoint.name)
        if mx.default_device().type == mx.DeviceType.cpu:
            skeleton.to_float32(model.language_model)
            for part in (model.vision_tower, model.embed_vision, model.embed_audio) if with_towers else ():
                part.set_dtype(mx.float32)
            mx.eval(used.parameters())
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _explain(error, checkpoint) from error
    return model


def _loaded(checkpoint: Checkpoint) -> Any:
    """mlx-vlm's model, unevaluated: by its own loader, or by ours where that insists on towers that are not stored."""
    import logging

    from mlx_vlm.models import gemma3n
    from mlx_vlm.utils import load_model

    if checkpoint.has_vision:
        return load_model(checkpoint.path, lazy=True)
    logging.disable(logging.WARNING)  # it warns that the towers are left out, as intended here
    try:
        # mlx-vlm drops a tower that the index does not declare, but its Gemma3n sanitizer looks at the tower first.
        with mock.patch.object(gemma3n.VisionModel, "sanitize", lambda self, weights: weights):
            return load_model(checkpoint.path, lazy=True)
    except ValueError as error:
        if "Missing" not in str(error):  # what versions before 0.7 say of towers that are not stored
            raise
        return _language_model_alone(checkpoint)
    finally:
        logging.disable(logging.NOTSET)


def _language_model_alone(checkpoint: Checkpoint) -> Any:
    """The whole language model, as ``inspect`` proved, in a model whose towers hold zeros and are never evaluated."""
    import mlx.core as mx

    model = skeleton.build(checkpoint.config)
    for shard in safetensors_header.shards(checkpoint.path):
        arrays: Any = mx.load(str(shard))
        model.load_weights([(_canonical_name(name), array) for name, array in arrays.items()], strict=False)
    return model.eval()


def _explain(error: Exception, checkpoint: Checkpoint) -> Exception:
    text = str(error)
    if "alloc" in text.lower() or "out of memory" in text.lower():
        return OutOfMemoryError(
            f"{checkpoint.name} does not fit: {text.splitlines()[0]}",
            expected=f"room for {checkpoint.bytes['total'] / 1e9:.1f} GB of weights",
            remedy="close other programs, or choose a smaller checkpoint",
        )
    said = " ".join(text.split())[:300] or type(error).__name__
    return CorruptCheckpointError(
        f"mlx-vlm cannot load {checkpoint.path}: {said}",
        expected="a checkpoint that mlx_vlm.utils.load_model accepts",
        remedy="forge or fetch it again, or try another mlx-vlm",
    )
