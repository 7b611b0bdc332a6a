"""The forged checkpoints' architectures, as the config.json that mlx-vlm reads.

Dimensions of e2b and e4b are the released ones (google/gemma-3n-E2B-it and E4B-it, config.json);
nano keeps every part of the topology and shrinks each dimension, so that a token takes tens of
milliseconds on two slow cores.
"""

from dataclasses import dataclass
from typing import Any

from gemma3n_perf.errors import UsageError

FORMAT = 1
"""Raised whenever the same preset and seed would forge other bytes."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A forged checkpoint: ``text`` holds the dimensions, ``bits`` the quantization (None: dense), ``dtype`` the rest.

    ``towers`` says whether the vision and audio towers are part of it. mlx-vlm's vision tower has a fixed
    size (MobileNetV5, 0.6 GB), so a small preset has none and takes forged soft tokens for an image.
    """

    name: str
    text: dict[str, Any]
    bits: int | None
    dtype: str
    towers: bool
    seed: int = 20260625

    @property
    def directory(self) -> str:
        """Folder name inside the cache: it changes when the bytes do."""
        return f"{self.name}-v{FORMAT}"

    def config(self) -> dict[str, Any]:
        """The checkpoint's config.json. JSON types only."""
        config: dict[str, Any] = {
            "architectures": ["Gemma3nForConditionalGeneration"],
            "model_type": "gemma3n",
            "eos_token_id": [1, 106],
            "vocab_size": self.text["vocab_size"],
            "hidden_size": self.text["hidden_size"],
            "text_config": self.text,
            "vision_config": {"model_type": "gemma3n_vision", "hidden_size": 2048, "vocab_offset": 262_144},
            "audio_config": {"model_type": "gemma3n_audio", "vocab_offset": 262_272},
            "gemma3n_perf": {
                "forged": self.name,
                "format": FORMAT,
                "seed": self.seed,
                "towers": self.towers,
                "dtype": self.dtype,
            },
        }
        if self.bits is not None:
            config["quantization"] = {"group_size": 64, "bits": self.bits}
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


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("nano", _nano(), bits=4, dtype="float32", towers=False),
        Preset("e2b-4bit", _released(30, 10, 8_192), bits=4, dtype="bfloat16", towers=True),
        Preset("e4b-4bit", _released(35, 15, 16_384), bits=4, dtype="bfloat16", towers=True),
        Preset("e4b-bf16", _released(35, 15, 16_384), bits=None, dtype="bfloat16", towers=True),
    )
}


def preset(name: str) -> Preset:
    """Look a preset up. Raises UsageError with the known names."""
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(
            f"there is no preset {name!r}",
            expected=f"one of {', '.join(PRESETS)}",
            remedy="gemma3n-perf forge --help describes each",
        ) from None
