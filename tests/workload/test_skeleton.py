import io
from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.errors import CorruptCheckpointError, UsageError
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.presets import PRESETS, preset


def parts(name: str) -> dict[str, int]:
    """Return a preset's bytes by part, without forging it."""
    config = PRESETS[name].config()
    return skeleton.bytes_by_part(skeleton.tensors(skeleton.build(config)), config["text_config"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "e2b-4bit",
            {"streamed": 1.363, "per_layer_embedding": 1.132, "vision": 0.591, "audio": 1.365, "total": 4.463},
        ),
        (
            "e4b-4bit",
            {"streamed": 2.524, "per_layer_embedding": 1.321, "vision": 0.591, "audio": 1.365, "total": 5.819},
        ),
        ("e4b-bf16", {"streamed": 8.973, "vision": 0.597, "audio": 1.369}),
    ],
)
def test_released_sizes(name: str, expected: dict[str, float]) -> None:
    """Bytes by part are those of the released checkpoints, in GB."""
    found = parts(name)
    assert {part: round(found[part] / 1e9, 3) for part in expected} == expected


def test_parts_leave_out_only_what_no_token_reads() -> None:
    """The k and v projections and k norms of KV-shared layers are stored, and counted in the total alone."""
    text = PRESETS["e4b-4bit"].text
    found = parts("e4b-4bit")
    k_and_v = 2 * text["num_key_value_heads"] * text["head_dim"] * text["hidden_size"]
    packed = k_and_v // 2 + k_and_v // 64 * 2 * 2  # four bits a weight; a bfloat16 scale and bias a group of 64
    unused = text["num_kv_shared_layers"] * (packed + 2 * text["head_dim"])
    assert found["total"] - sum(found[part] for part in skeleton.PARTS) == unused


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("language_model.model.embed_tokens.weight", "streamed"),
        ("language_model.model.embed_tokens_per_layer.scales", "per_layer_embedding"),
        ("language_model.model.layers.2.self_attn.k_proj.weight", "streamed"),
        ("language_model.model.layers.3.self_attn.k_proj.weight", None),
        ("language_model.model.layers.3.self_attn.k_norm.weight", None),
        ("language_model.model.layers.3.self_attn.q_proj.weight", "streamed"),
        ("vision_tower.timm_model.conv_stem.conv.weight", "vision"),
        ("embed_audio.embedding.weight", "audio"),
    ],
)
def test_every_tensor_has_its_part(name: str, part: str | None) -> None:
    """nano's layers from the fourth on share another layer's KV cache."""
    assert skeleton.part_of(name, PRESETS["nano"].text) == part


def test_everything_that_divides_by_the_group_is_quantized_and_towers_are_not() -> None:
    """LAUREL and the modality router are quantized too; the 4-wide AltUp coefficients and norms cannot be."""
    found = {tensor.name: tensor for tensor in skeleton.tensors(skeleton.build(PRESETS["e2b-4bit"].config()))}
    layer = "language_model.model.layers.0"
    for name in (f"{layer}.laurel.linear_left", f"{layer}.laurel.linear_right", f"{layer}.altup.modality_router"):
        assert found[f"{name}.weight"].dtype == "uint32"
        assert found[f"{name}.scales"].dtype == "bfloat16"
    assert found[f"{layer}.altup.prediction_coefs.weight"].dtype == "bfloat16"
    others = {name.partition(".")[0] for name in found if name.endswith(".scales")}
    assert others == {"language_model", "embed_vision", "embed_audio"}


def test_an_entry_of_a_module_decides_how_it_is_quantized() -> None:
    """False leaves it dense, other bits pack it otherwise; modules without an entry are as converters quantize them."""
    config = PRESETS["nano"].config()
    layer = "language_model.model.layers.0"
    config["quantization"] |= {
        f"{layer}.mlp.up_proj": False,
        f"{layer}.mlp.down_proj": {"group_size": 64, "bits": 8},
        f"{layer}.mlp.gate_proj": True,
    }
    model = skeleton.build(config)
    found = {tensor.name: tensor for tensor in skeleton.tensors(model)}
    assert found[f"{layer}.mlp.up_proj.weight"].dtype == "float32"
    assert found[f"{layer}.mlp.down_proj.weight"].shape == (256, 512 // 4)
    assert found[f"{layer}.mlp.gate_proj.weight"].shape == (512, 256 // 8)
    entries = skeleton.quantized(model)
    assert (entries[f"{layer}.mlp.up_proj"], entries[f"{layer}.mlp.gate_proj"]) == (False, True)
    assert f"{layer}.altup.prediction_coefs" not in entries  # converters do not write what cannot be quantized


def test_building_leaves_no_chain_of_random_keys_behind() -> None:
    """What is never evaluated must not hang on MLX's one random state, or it grows until walking it crashes."""
    for _ in range(2):
        skeleton.build(PRESETS["nano"].config())
    out = io.StringIO()
    mx.export_to_dot(out, mx.random.uniform(shape=(1,)))
    assert out.getvalue().count("shape=rectangle") < 40


def change(path: str, value: Any) -> dict[str, Any]:
    """Return nano's config with the value at a dotted path replaced, or dropped where the value is ``...``."""
    config = PRESETS["nano"].config()
    *parents, last = path.split(".")
    node = config
    for name in parents:
        node[name] = dict(node[name])
        node = node[name]
    node[last] = value
    if value is ...:
        del node[last]
    return config


@pytest.mark.parametrize("value", ["llama", None, ..., 5])
def test_another_model_is_refused(value: Any) -> None:
    """The error names the type that was found."""
    with pytest.raises(CorruptCheckpointError, match=r"config\.json says model_type") as caught:
        skeleton.build(change("model_type", value))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text_config", ...),
        ("text_config", None),
        ("text_config", []),
        ("text_config.head_dim", ...),
        ("text_config.num_key_value_heads", "2"),
        ("text_config.num_key_value_heads", 0),
        ("text_config.num_hidden_layers", 0),
        ("text_config.hidden_size", -1),
        ("text_config.hidden_size", 1 << 40),
        ("text_config.layer_types", ["sliding_attention"]),
        ("text_config.layer_types", ["alien"] * 6),
        ("vision_config", [1]),
        ("quantization", {"bits": 4}),
        ("quantization", {"group_size": 7, "bits": 4}),
        ("quantization", "4"),
        ("gemma3n_perf.dtype", "float7"),
        ("gemma3n_perf", "nano"),
    ],
)
def test_a_config_that_builds_no_model_is_named(path: str, value: Any) -> None:
    """Whatever is wrong with it, the error is about config.json and tells what to do."""
    with pytest.raises(CorruptCheckpointError, match=r"config\.json") as caught:
        skeleton.build(change(path, value))
    assert caught.value.expected
    assert caught.value.remedy


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    """The error lists all four."""
    with pytest.raises(UsageError, match="there is no preset 'e3b'") as caught:
        preset("e3b")
    assert caught.value.expected == "one of " + ", ".join(PRESETS)


@pytest.mark.parametrize("key", ["num_kv_shared_layers", "max_position_embeddings"])
def test_an_optional_dimension_that_is_no_number_is_named(key: str) -> None:
    """Both have defaults, and some writers say null."""
    config = PRESETS["nano"].config()
    config = config | {"text_config": config["text_config"] | {key: None}}
    with pytest.raises(CorruptCheckpointError, match=f"{key} None"):
        skeleton.check(config)


@pytest.mark.parametrize("number", ["x", "\u00b2", "9" * 4301])
def test_a_tensor_of_no_layer_is_named(number: str) -> None:
    """It has no place in a model."""
    with pytest.raises(CorruptCheckpointError, match="is of layer"):
        skeleton.part_of(f"language_model.model.layers.{number}.weight", PRESETS["nano"].config()["text_config"])
