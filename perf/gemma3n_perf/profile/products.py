"""The weight products of one decode token, from the config alone: which, how often, and the bytes each one reads."""

from dataclasses import dataclass
from typing import Any

GROUP = 64


@dataclass(frozen=True, slots=True)
class Product:
    """A linear layer that a token multiplies by: ``inputs`` to ``outputs``, ``modules`` of them, each ``uses`` times.

    ``part`` names what it belongs to: attention, mlp, head, altup, laurel or per-layer input.
    """

    part: str
    name: str
    inputs: int
    outputs: int
    modules: int
    uses: int = 1

    @property
    def quantizable(self) -> bool:
        """Whether the released 4-bit checkpoints quantize it: groups of 64 inputs."""
        return self.inputs % GROUP == 0

    def bytes(self, bits: int | None, element: int) -> int:
        """Bytes of all its modules; a quantized one has a scale and a bias of ``element`` bytes for 64 weights."""
        weights = self.modules * self.inputs * self.outputs
        if bits is None or not self.quantizable:
            return weights * element
        return weights * bits // 8 + 2 * element * (weights // GROUP)


def products(text: dict[str, Any]) -> tuple[Product, ...]:
    """Every product of one token. ``text`` is a checkpoint's text_config; KV-shared layers have no k and v."""
    layers, shared = text["num_hidden_layers"], text.get("num_kv_shared_layers", 0)
    hidden, planes = text["hidden_size"], text["altup_num_inputs"]
    query, keys = text["num_attention_heads"] * text["head_dim"], text["num_key_value_heads"] * text["head_dim"]
    sizes = text["intermediate_size"]
    inner = sizes[0] if isinstance(sizes, list) else sizes
    per_layer, rank = text["hidden_size_per_layer_input"], text["laurel_rank"]
    return (
        Product("attention", "q_proj", hidden, query, layers),
        Product("attention", "k_proj and v_proj", hidden, keys, 2 * (layers - shared)),
        Product("attention", "o_proj", query, hidden, layers),
        Product("mlp", "gate_proj and up_proj", hidden, inner, 2 * layers),
        Product("mlp", "down_proj", inner, hidden, layers),
        Product("head", "embed_tokens, tied", hidden, text["vocab_size"], 1),
        Product("altup", "modality_router", hidden, planes, layers, uses=2),
        Product("altup", "prediction_coefs", planes, planes**2, layers),
        Product("altup", "correction_coefs", planes, planes, layers),
        Product("altup", "altup_projections and altup_unembed_projections", hidden, hidden, 2 * (planes - 1)),
        Product("laurel", "linear_left", hidden, rank, layers),
        Product("laurel", "linear_right", rank, hidden, layers),
        Product("per-layer input", "per_layer_model_projection", hidden, layers * per_layer, 1),
        Product("per-layer input", "per_layer_input_gate", hidden, per_layer, layers),
        Product("per-layer input", "per_layer_projection", per_layer, hidden, layers),
    )


def bytes_by_part(config: dict[str, Any]) -> dict[str, int]:
    """Bytes that one token reads for its products, by part, as a checkpoint of this config stores them."""
    bits = (config.get("quantization") or {}).get("bits")
    element = 4 if (config.get("gemma3n_perf") or {}).get("dtype") == "float32" else 2
    found: dict[str, int] = {}
    for product in products(config["text_config"]):
        found[product.part] = found.get(product.part, 0) + product.bytes(bits, element)
    return found


def expected_calls(config: dict[str, Any]) -> dict[str, int]:
    """How often one token asks MLX for its products, norms, rotations and attentions, by MLX's names."""
    text = config["text_config"]
    layers = text["num_hidden_layers"]
    own = layers - text.get("num_kv_shared_layers", 0)
    found = products(text)
    quantized = config.get("quantization") is not None
    return {
        "quantized_matmul": sum(p.modules * p.uses for p in found if p.quantizable) if quantized else 0,
        # Of the layer: five around its blocks, LAUREL's, q's, the router's twice; k's and v's; then two of the model.
        "rms_norm": 9 * layers + 2 * own + 2,
        "rope": layers + own,
        "scaled_dot_product_attention": layers,
    }
