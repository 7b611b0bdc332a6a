"""The forged checkpoints: their architectures, as the config.json that mlx-vlm reads, and how each is measured.

Dimensions of e2b and e4b are the released ones (google/gemma-3n-E2B-it and E4B-it, config.json);
nano keeps every part of the topology and shrinks each dimension, so that a token takes tens of
milliseconds on two slow cores.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError

FORMAT = 2
"""Raised whenever the same preset and seed would forge other bytes."""

SOFT_IDS = 128
"""Token ids that stand for an image, and as many more for a sound."""

_VISION = {
    "model_type": "gemma3n_vision",
    "architecture": "mobilenetv5_300m_enc",
    "do_pooling": False,
    "hidden_size": 2048,
    "num_classes": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": SOFT_IDS,
}
_AUDIO = {
    "model_type": "gemma3n_audio",
    "hidden_size": 1536,
    "input_feat_size": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": SOFT_IDS,
}


def cache_folder() -> Path:
    """The user's cache folder; GEMMA3N_PERF_CACHE moves it."""
    import platformdirs  # not at the top: trusted CI steps read workload ids with Python alone

    return Path(os.environ.get("GEMMA3N_PERF_CACHE") or platformdirs.user_cache_dir("gemma3n-perf"))


def checkpoints_root() -> Path:
    """Where checkpoints lie in it."""
    return cache_folder() / "checkpoints"


@dataclass(frozen=True, slots=True)
class Usage:
    """How a checkpoint is measured unless the user says otherwise.

    ``shapes`` are modality and shape of its workloads, ``cpu_shapes`` those on a CPU, ``default_on`` the vendors
    whose chips measure it by default. ``contexts`` are the prompt lengths that a profile compares. ``variants`` are
    presets of the same dimensions and other weights, which ``--set wide`` measures beside it.
    """

    shapes: tuple[str, ...] = ("text/pp320-tg64", "image/pp320-tg64")
    cpu_shapes: tuple[str, ...] = ("text/pp4-tg4",)  # a released size takes seconds a token on a CPU
    default_on: tuple[str, ...] = ()
    contexts: tuple[int, ...] = (64, 320, 1088, 2112)
    variants: tuple[str, ...] = ()

    @property
    def fits_cpu(self) -> bool:
        """Whether a CPU is quick enough for the same shapes as a GPU."""
        return self.shapes == self.cpu_shapes


@dataclass(frozen=True, slots=True)
class Preset:
    """A forged checkpoint: ``text`` holds the dimensions, ``bits`` the quantization (None: dense), ``dtype`` the rest.

    ``others`` are bits of modules of each layer that are quantized otherwise, by name.
    ``towers`` says whether the vision and audio towers are part of it. mlx-vlm's vision tower has a fixed
    size (MobileNetV5, 0.6 GB), so a small preset has none and takes forged soft tokens for an image.
    """

    name: str
    text: dict[str, Any]
    bits: int | None
    dtype: str
    towers: bool
    usage: Usage = Usage()
    others: tuple[tuple[str, int], ...] = ()
    seed: int = 20260625

    @property
    def directory(self) -> str:
        """Folder name inside the cache: it changes when the bytes do."""
        return f"{self.name}-v{FORMAT}"

    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json, but for the entries of each quantized module. JSON types only."""
        # Ids beyond those with a per-layer embedding are an image's soft tokens, then a sound's: 128 each.
        soft = self.text["vocab_size_per_layer_input"]
        last = soft - 6_144 if soft > 6_144 else soft - 48
        config: dict[str, Any] = {
            "architectures": ["Gemma3nForConditionalGeneration"],
            "model_type": "gemma3n",
            "bos_token_id": 2,
            "eos_token_id": [1, 106],
            "pad_token_id": 0,
            "boi_token_id": last - 1,
            "boa_token_id": last,
            "eoi_token_id": soft,
            "image_token_id": soft + 1,
            "eoa_token_id": soft + SOFT_IDS,
            "audio_token_id": soft + SOFT_IDS + 1,
            "vision_soft_tokens_per_image": 256,
            "audio_soft_tokens_per_image": 188,
            "vocab_size": self.text["vocab_size"],
            "hidden_size": self.text["hidden_size"],
            "torch_dtype": self.dtype,
            "text_config": self.text,
            "vision_config": _VISION | {"vocab_offset": soft},
            "audio_config": _AUDIO | {"vocab_offset": soft + SOFT_IDS},
            "gemma3n_perf": {
                "forged": self.name,
                "format": FORMAT,
                "seed": self.seed,
                "towers": self.towers,
                "dtype": self.dtype,
            },
        }
        if self.bits is not None:
            config["quantization"] = {"group_size": 64, "bits": self.bits} | {
                f"language_model.model.layers.{layer}.{name}": {"group_size": 64, "bits": bits}
                for layer in range(self.text["num_hidden_layers"])
                for name, bits in self.others
            }
            config["quantization_config"] = dict(config["quantization"])
        return config


def _layer_types(pattern: int, layers: int) -> list[str]:
    return ["full_attention" if (i + 1) % pattern == 0 else "sliding_attention" for i in range(layers)]


def _released(layers: int, shared: int, intermediate: int) -> dict[str, Any]:
    return {
        "model_type": "gemma3n_text",
        "hidden_size": 2048,
        "num_hidden_layers": layers,
        "intermediate_size": [intermediate] * layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "rms_norm_eps": 1e-6,
        "vocab_size": 262_400,
        "vocab_size_per_layer_input": 262_144,
        "hidden_size_per_layer_input": 256,
        "laurel_rank": 64,
        "altup_active_idx": 0,
        "altup_num_inputs": 4,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "rope_local_base_freq": 10_000.0,
        "rope_theta": 1_000_000.0,
        "sliding_window": 512,
        "activation_sparsity_pattern": [0.95] * 10 + [0.0] * (layers - 10),
        "final_logit_softcapping": 30.0,
        "num_kv_shared_layers": shared,
        "max_position_embeddings": 32_768,
        "layer_types": _layer_types(5, layers),
        "attention_bias": False,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_scaling": None,
    }


def _nano() -> dict[str, Any]:
    layers = 6
    return _released(layers=layers + 10, shared=3, intermediate=512) | {
        "hidden_size": 256,
        "num_hidden_layers": layers,
        "intermediate_size": [512] * layers,
        "num_attention_heads": 4,
        "head_dim": 64,
        "vocab_size": 2_304,
        "vocab_size_per_layer_input": 2_048,
        "hidden_size_per_layer_input": 64,
        "sliding_window": 128,
        "activation_sparsity_pattern": [0.95] * 2 + [0.0] * (layers - 2),
        "layer_types": _layer_types(3, layers),
    }


_NANO_SHAPES = ("text/pp40-tg64", "text/pp140-tg64", "image/pp296-tg64")
_NANO_USAGE = Usage(
    _NANO_SHAPES, _NANO_SHAPES, default_on=("cpu",), contexts=(40, 140, 296, 552), variants=("nano-8bit", "nano-mixed")
)
_NANO_VARIANT = Usage(_NANO_SHAPES[:1], _NANO_SHAPES[:1], contexts=_NANO_USAGE.contexts)
_ON_GPUS = Usage(default_on=("nvidia", "apple"))
PRESETS = {
    preset.name: preset
    for preset in (
        Preset("nano", _nano(), bits=4, dtype="float32", towers=False, usage=_NANO_USAGE),
        Preset("nano-8bit", _nano(), bits=8, dtype="float32", towers=False, usage=_NANO_VARIANT),
        Preset("nano-mixed", _nano(), 4, "float32", towers=False, usage=_NANO_VARIANT, others=(("mlp.down_proj", 6),)),
        Preset("e2b-4bit", _released(30, 10, 8_192), bits=4, dtype="bfloat16", towers=True, usage=_ON_GPUS),
        Preset("e4b-4bit", _released(35, 15, 16_384), bits=4, dtype="bfloat16", towers=True, usage=_ON_GPUS),
        Preset("e4b-bf16", _released(35, 15, 16_384), bits=None, dtype="bfloat16", towers=True),
    )
}
"""Every preset, in the order in which they are listed. Adding one here is all that it takes."""


def preset(name: str) -> Preset:
    """Look a preset up. Raises UsageError with the known names."""
    if name not in PRESETS:
        raise UsageError(
            f"there is no preset {name!r}",
            expected=f"one of {', '.join(PRESETS)}",
            remedy="gemma3n-perf forge --help describes each",
        )
    return PRESETS[name]


def usage(checkpoint: str) -> Usage:
    """How a checkpoint is measured, by its short name; one that is not forged is taken for a released size."""
    return PRESETS[checkpoint].usage if checkpoint in PRESETS else Usage()


def made_again(checkpoint: str) -> str:
    """Say how to replace a damaged checkpoint, by its short name."""
    return f"gemma3n-perf forge {checkpoint} --force" if checkpoint in PRESETS else "fetch the checkpoint again"
