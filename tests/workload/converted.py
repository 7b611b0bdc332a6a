"""Checkpoints as converters write them, with random weights and nano's dimensions.

The rules are those of ``mlx_vlm.convert`` and ``mlx_lm.convert`` (mlx_lm/utils.py, quantize_model and save_model):
weights in bfloat16; what has ``to_quantized`` and an input that divides by the group size is quantized, but for the
towers; config.json names modules that are quantized otherwise, and those left dense only where the converter's
predicate was asked for each; shards, an index, and a tokenizer's files beside them.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_vlm.models import gemma3n

from gemma3n_perf.workload.presets import PRESETS

_TOWERS = ("vision_model", "vision_tower", "audio_model", "audio_tower")  # mlx_vlm.utils.skip_multimodal_module
_OTHER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json",
    "special_tokens_map.json", "generation_config.json",
)  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a checkpoint was converted.

    ``quantization`` is config.json's default for all modules, None for a dense checkpoint. ``others`` are entries of
    modules whose name holds a text: how these are quantized, or False. ``unsaid`` are those left dense without a word.
    With ``entries`` each module has its entry, as mlx-vlm wrote them. ``names`` says whose names tensors have.
    """

    quantization: dict[str, Any] | None = field(default_factory=lambda: {"group_size": 64, "bits": 4})
    others: dict[str, Any] = field(default_factory=dict)
    unsaid: tuple[str, ...] = ()
    entries: bool = False
    names: str = "mlx-vlm"
    shards: int = 1
    towers: bool = False


STYLES = {
    "4bit": Style(),
    "every-entry": Style(entries=True),
    "dense": Style(None),
    "dense-hugging-face": Style(None, names="hugging-face"),
    "hugging-face": Style(names="hugging-face"),
    "mlx-lm": Style(names="mlx-lm"),
    "shards": Style(shards=3),
    **{f"{bits}bit": Style({"group_size": 64, "bits": bits}) for bits in (2, 3, 5, 6, 8)},
    "group-32": Style({"group_size": 32, "bits": 4}),
    "group-128": Style({"group_size": 128, "bits": 4}),
    "mixed-bits": Style(others={name: {"group_size": 64, "bits": 6} for name in ("v_proj", "down_proj")}),
    "mixed-groups": Style(others={"down_proj": {"group_size": 32, "bits": 8}}),
    "embeddings-6bit": Style(others={"embed_tokens": {"group_size": 64, "bits": 6}}),
    "embeddings-dense": Style(others={"embed_tokens": False}),
    "per-layer-dense": Style(others={"embed_tokens_per_layer": False}),
    "per-layer-dense-unsaid": Style(unsaid=("embed_tokens_per_layer",)),
    "mxfp4": Style({"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    "mxfp8": Style({"group_size": 32, "bits": 8, "mode": "mxfp8"}),
    "nvfp4": Style({"group_size": 16, "bits": 4, "mode": "nvfp4"}),
    "mxfp4-embeddings-8bit": Style(
        {"group_size": 32, "bits": 4, "mode": "mxfp4"},
        others={"embed_tokens": {"group_size": 64, "bits": 8, "mode": "affine"}},
    ),
}
"""What the hub holds of Gemma3n and its relatives, by name; text only."""

TOWERS = Style(entries=True, towers=True, shards=2)
"""The whole model: its embedders of images and sounds are quantized, its towers are not."""


def write(folder: Path, style: Style) -> Path:
    """Write a checkpoint of that style into ``folder``, which is made, and return it."""
    folder.mkdir(parents=True)
    config, parts = _config()
    mx.random.seed(1)
    model = gemma3n.Model(gemma3n.ModelConfig.from_dict(config | parts))
    model.set_dtype(mx.bfloat16)
    if style.quantization is not None:
        config["quantization"] = _quantize(model, style)
        config["quantization_config"] = config["quantization"]
    flat: Any = tree_flatten(model.parameters())
    weights = {_renamed(k, style.names): v for k, v in flat if style.towers or k.startswith("language_model.")}
    _save(folder, weights, style.shards)
    (folder / "config.json").write_text(json.dumps(config, indent=4))
    for name in _OTHER_FILES:
        (folder / name).write_text("{}")
    (folder / "README.md").write_text("# A model\n")
    return folder


def _config() -> tuple[dict[str, Any], dict[str, Any]]:
    """What config.json says, and the same as mlx-vlm's objects. Ids are nano's."""
    nano = PRESETS["nano"].config()
    config = {
        key: value for key, value in nano.items() if key not in ("gemma3n_perf", "quantization", "quantization_config")
    }
    config["torch_dtype"], config["transformers_version"] = "bfloat16", "4.53.0"
    config["audio_config"] = nano["audio_config"] | {
        "hidden_size": 128, "conf_num_hidden_layers": 1, "conf_num_attention_heads": 2,
    }  # fmt: skip
    parts = {
        "text_config": gemma3n.TextConfig.from_dict(config["text_config"]),
        "vision_config": gemma3n.VisionConfig.from_dict(config["vision_config"]),
        "audio_config": gemma3n.AudioConfig.from_dict(config["audio_config"]),
    }
    return config, parts


def _quantize(model: Any, style: Style) -> dict[str, Any]:
    """Quantize ``model`` and return config.json's section."""
    assert style.quantization is not None
    section: dict[str, Any] = dict(style.quantization)

    def predicate(path: str, module: Any) -> bool | dict[str, Any]:
        if not hasattr(module, "to_quantized") or module.weight.shape[-1] % section["group_size"]:
            return False
        if any(name in path for name in (*_TOWERS, *style.unsaid)):
            return False
        for name, entry in style.others.items():
            if name in path.split("."):
                section[path] = entry
                return bool(entry) and entry
        if style.entries:
            section[path] = True
        return True

    nn.quantize(
        model, section["group_size"], section["bits"], mode=section.get("mode", "affine"), class_predicate=predicate
    )
    return section


def _renamed(name: str, names: str) -> str:
    """The name of a tensor of the language model in files of Hugging Face's and of mlx-lm, whose modules are alike."""
    if names == "mlx-vlm":
        return name
    return "model." + name.replace("language_model.model.", "language_model.")


def _save(folder: Path, weights: dict[str, Any], shards: int) -> None:
    mx.eval(weights)
    names = sorted(weights)
    size = -(-len(names) // shards)
    places: dict[str, str] = {}
    for number in range(shards):
        part = names[number * size : (number + 1) * size]
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors" if shards > 1 else "model.safetensors"
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in part}, metadata={"format": "mlx"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(array.nbytes for array in weights.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=4))
