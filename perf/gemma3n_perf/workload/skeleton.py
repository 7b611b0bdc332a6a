"""mlx-vlm's Gemma3n with its shapes and no weights: what a checkpoint must hold, and what a token reads.

Building the model allocates nothing, because MLX evaluates nothing until it is asked to.
"""

from dataclasses import dataclass
from typing import Any

from gemma3n_perf.errors import CorruptCheckpointError

PARTS = ("streamed", "per_layer_embedding", "vision", "audio")
_DIMENSIONS = (
    "num_hidden_layers", "hidden_size", "num_key_value_heads", "head_dim", "vocab_size", "vocab_size_per_layer_input",
)  # fmt: skip
_OPTIONAL, _DIGITS = ("num_kv_shared_layers", "max_position_embeddings"), 10
_MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
_TOWERS = {"vision_tower": "vision", "embed_vision": "vision", "audio_tower": "audio", "embed_audio": "audio"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Name, MLX dtype name, shape and size in bytes of one stored tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


def check(config: dict[str, Any]) -> None:
    """Look at what the suite itself reads of a config. Raises CorruptCheckpointError for one that is not Gemma3n's."""
    if config.get("model_type") != "gemma3n":
        raise CorruptCheckpointError(
            f"config.json says model_type {config.get('model_type')!r}",
            expected="'gemma3n': this suite measures Gemma3n decode only",
            remedy="give a Gemma3n checkpoint, or forge one: gemma3n-perf forge nano",
        )
    text: Any = config.get("text_config")
    missing = [key for key in _DIMENSIONS if not isinstance(text, dict) or not isinstance(text.get(key), int)]
    if missing:
        raise CorruptCheckpointError(
            f"the text_config of config.json lacks {missing[0]}",
            expected=f"whole numbers for {', '.join(_DIMENSIONS)}",
            remedy="fetch config.json again, or forge a checkpoint",
        )
    for key in _OPTIONAL:
        if not isinstance(text.get(key, 0), int):
            raise CorruptCheckpointError(
                f"the text_config of config.json says {key} {text[key]!r}",
                expected="a whole number, or no such entry",
                remedy="fetch config.json again, or forge a checkpoint",
            )


def build(config: dict[str, Any]) -> Any:
    """Instantiate mlx-vlm's model for ``config``, unevaluated and of zeros, quantized as its config says.

    Converters quantize every linear and embedding whose input divides by the group size, but for the towers'; where
    config.json has an entry for a module, the entry decides. Raises CorruptCheckpointError for a config
    that is not Gemma3n's.
    """
    import mlx.core as mx
    import mlx.nn as nn
    from mlx.utils import tree_map
    from mlx_vlm.models import gemma3n

    check(config)
    try:
        parts = {
            "text_config": gemma3n.TextConfig.from_dict(config["text_config"]),
            "vision_config": gemma3n.VisionConfig.from_dict(config.get("vision_config") or {}),
            "audio_config": gemma3n.AudioConfig.from_dict(config.get("audio_config") or {}),
        }
        model = gemma3n.Model(gemma3n.ModelConfig.from_dict(config | parts))
        model.set_dtype(getattr(mx, (config.get("gemma3n_perf") or {}).get("dtype", "bfloat16")))
        if quantization := config.get("quantization"):
            mode = quantization.get("mode", "affine")
            if quantization["group_size"] not in (16, 32, 64, 128) or mode not in _MODES:
                raise ValueError(f"a group_size of {quantization['group_size']} in mode {mode}")
            nn.quantize(
                model, quantization["group_size"], quantization["bits"], **({"mode": mode} if mode != "affine" else {}),
                class_predicate=lambda path, module: _style(path, module, quantization),
            )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise CorruptCheckpointError(
            f"mlx-vlm cannot build Gemma3n from this config.json: {type(error).__name__}: {error}",
            expected="the text, vision and audio sections of a released Gemma3n checkpoint",
            remedy="fetch config.json again, or forge a checkpoint",
        ) from error
    finally:
        # Random weights hang on MLX's one lazy chain of keys. Unless cut, it grows with every model that is never
        # evaluated, until walking it overflows the stack.
        mx.random.seed(0)
    model.update(tree_map(lambda array: mx.zeros(array.shape, array.dtype), model.parameters()))
    return model


def _style(path: str, module: Any, quantization: dict[str, Any]) -> bool | dict[str, Any]:
    """Whether a module is quantized, or how."""
    if not hasattr(module, "to_quantized"):
        return False
    # mlx-vlm takes entries with and without the model's name in front.
    for name in (path, path.removeprefix("language_model.")):
        if isinstance(entry := quantization.get(name), dict):
            return bool(module.weight.shape[-1] % entry.get("group_size", quantization["group_size"]) == 0) and entry
    if module.weight.shape[-1] % quantization["group_size"]:
        return False
    return bool(quantization.get(path, path.partition(".")[0] not in ("vision_tower", "audio_tower")))


def quantized(model: Any) -> dict[str, bool]:
    """The entry of each module in config.json, as converters write them: whether it is quantized, where it could be."""
    found = {}
    for path, module in model.named_modules():
        if hasattr(module, "scales") or (hasattr(module, "to_quantized") and module.weight.shape[-1] % 64 == 0):
            found[path] = hasattr(module, "scales")
    return dict(sorted(found.items()))


def to_float32(language_model: Any) -> None:
    """Cast what a CPU computes with; the per-layer embedding stays: one row a token is read from it."""
    import mlx.core as mx

    gathered = language_model.model.embed_tokens_per_layer
    kept = gathered.parameters()
    language_model.set_dtype(mx.float32)
    gathered.update(kept)


def named_arrays(tree: Any) -> list[tuple[str, Any]]:
    """Every array of a tree of parameters, with its dotted name."""
    from mlx.utils import tree_flatten

    flat: Any = tree_flatten(tree)
    return list(flat)


def tensors(model: Any) -> list[Tensor]:
    """Every parameter of ``model`` by stored name, sorted. Nothing is evaluated."""
    found = named_arrays(model.parameters())
    return sorted(
        (Tensor(name, str(a.dtype).rpartition(".")[2], tuple(a.shape), a.nbytes) for name, a in found),
        key=lambda tensor: tensor.name,
    )


def is_stored(name: str, config: dict[str, Any]) -> bool:
    """Whether a tensor or module belongs to a checkpoint: by its files' parts, by how it is forged, else all do."""
    if "stored" in config:
        return name.partition(".")[0] in config["stored"]
    return bool((config.get("gemma3n_perf") or {}).get("towers", True)) or name.startswith("language_model.")


def part_of(name: str, text_config: dict[str, Any]) -> str | None:
    """Which part of the checkpoint a tensor belongs to; None for weights that no token ever reads.

    A KV-shared layer reads another layer's cache, so its own k and v projections and k norm are stored
    but never used. The per-layer embedding is gathered, one row a token, and does not stream.
    """
    top = name.partition(".")[0]
    if top in _TOWERS:
        return _TOWERS[top]
    if ".embed_tokens_per_layer." in name:
        return "per_layer_embedding"
    if ".layers." in name:
        number = name.split(".layers.")[1].split(".")[0]
        if not (number.isascii() and number.isdecimal() and len(number) < _DIGITS):
            raise CorruptCheckpointError(
                f"the tensor {name[:80]} is of layer {number[:20]!r}",
                expected="the number of a layer",
                remedy="fetch the weights again, or forge a checkpoint",
            )
        layer = int(number)
        first_shared = text_config["num_hidden_layers"] - text_config.get("num_kv_shared_layers", 0)
        if layer >= first_shared and any(f".self_attn.{p}." in name for p in ("k_proj", "v_proj", "k_norm")):
            return None
    return "streamed"


def bytes_by_part(found: list[Tensor], text_config: dict[str, Any]) -> dict[str, int]:
    """Bytes of each part, and ``total`` of all that is stored. ``streamed`` is what one text token reads."""
    sizes = dict.fromkeys(PARTS, 0)
    for tensor in found:
        part = part_of(tensor.name, text_config)
        if part is not None:
            sizes[part] += tensor.nbytes
    return sizes | {"total": sum(tensor.nbytes for tensor in found)}
