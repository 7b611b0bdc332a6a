"""The streaming floor: one token's weight products alone, through the model's own layers, in one graph.

A floor is measured with the kernels that decode uses, not computed from a data sheet. All layers are distinct, so that
no cache helps; KV-shared layers skip what the model skips; the products feed one another without glue, so that they run
one after the other as in decode; several tokens go in one dispatch. Which products, how often, and the bytes that each
one reads follow from the config alone.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.profile.rounds import Rounds, estimate
from gemma3n_perf.profile.types import Floor

GROUP = 64
_CPU_ELEMENTS, _GPU_ELEMENTS = 1 << 22, 1 << 30
_QUEUED = 4
_WIDE = 4096


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
    quantization = config.get("quantization") or {}
    others = {path.rpartition(".")[2]: one["bits"] for path, one in quantization.items() if isinstance(one, dict)}
    element = 4 if (config.get("gemma3n_perf") or {}).get("dtype") == "float32" else 2
    found: Counter[str] = Counter()
    for product in products(config["text_config"]):
        found[product.part] += product.bytes(others.get(product.name, quantization.get("bits")), element)
    return dict(found)


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


def token_chain(language_model: Any, x: Any) -> tuple[Any, list[Any]]:
    """Build one token's products from ``x``, shape (1, 1, hidden). Returns the last hidden state and all loose ends.

    The hidden state passes from product to product wherever widths allow; what does not feed another product is an end.
    """
    model = language_model.model
    ends = [projection(x) for projection in model.altup_projections]
    ends.append(model.per_layer_model_projection(x))
    first_shared = model.first_kv_shared_layer_idx
    for index, layer in enumerate(model.layers):
        altup, attention, mlp = layer.altup, layer.self_attn, layer.mlp
        ends.append(altup.prediction_coefs(altup.modality_router(x)))
        ends.append(layer.laurel.linear_right(layer.laurel.linear_left(x)))
        if index < first_shared:
            ends += [attention.k_proj(x), attention.v_proj(x)]
        x = attention.o_proj(attention.q_proj(x))
        ends.append(mlp.up_proj(x))
        x = mlp.down_proj(mlp.gate_proj(x))
        ends.append(altup.correction_coefs(altup.modality_router(x)))
        x = layer.per_layer_projection(layer.per_layer_input_gate(x))
    ends += [projection(x) for projection in model.altup_unembed_projections]
    ends.append(model.embed_tokens.as_linear(x))
    return x, ends


def measure(
    model: Any,
    config: dict[str, Any],
    streamed_bytes: int,
    clock: Clock,
    rounds: Rounds,
    *,
    decode: Callable[[], float],
    copy_bandwidth: Callable[[], float],
    tokens: int = 4,
) -> Floor:
    """Time the chain of a loaded model, one large product and decode in interleaved rounds.

    ``streamed_bytes`` are what the checkpoint's headers say a token reads. ``decode`` times some tokens of the real
    loop and returns seconds per token, for a share that is paired.
    """
    product, moved = _large_product(config, clock)
    chain = _chain(model.language_model, config, clock, tokens)
    chain(), product()  # compiles and warms
    found = rounds.interleave({"chain": chain, "gemv": product, "decode": lambda: (decode(), 0.0)})
    (chain_s, dispatch_s), (product_s, _), (decode_s, _) = (np.transpose(values) for values in found.values())
    calls = expected_calls(config)["quantized_matmul"]
    return Floor(
        products=calls or sum(one.modules * one.uses for one in products(config["text_config"])),
        streamed_bytes=streamed_bytes,
        by_part=bytes_by_part(config),
        chain_s=estimate(chain_s),
        dispatch_s=estimate(dispatch_s),
        tpot_s=estimate(decode_s),
        share=estimate(chain_s / decode_s),
        gemv_bandwidth=estimate(moved / product_s),
        copy_bandwidth=copy_bandwidth(),
    )


def _timed(outputs: Any, clock: Clock, tokens: int) -> tuple[float, float]:
    """Compute ``outputs``; returns the seconds for each of ``tokens``, and those of them that dispatching took."""
    import mlx.core as mx

    begin = clock()
    mx.async_eval(outputs)
    dispatched = clock()
    mx.eval(outputs)
    return (clock() - begin) / tokens, (dispatched - begin) / tokens


def _chain(language_model: Any, config: dict[str, Any], clock: Clock, tokens: int) -> Callable[[], tuple[float, float]]:
    import mlx.core as mx

    start = mx.ones((1, 1, config["text_config"]["hidden_size"]), language_model.model.norm.weight.dtype)
    mx.eval(start)

    def run() -> tuple[float, float]:
        x, ends = start, []
        for _ in range(tokens):
            x, more = token_chain(language_model, x)
            ends += more
        return _timed(ends, clock, tokens)

    return run


def _large_product(config: dict[str, Any], clock: Clock) -> tuple[Callable[[], tuple[float, float]], int]:
    """Return one large product of the checkpoint's kind, and the bytes it reads: what a kernel can stream at best."""
    import mlx.core as mx

    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    quantization = config.get("quantization")
    dtype = mx.float32 if on_cpu else mx.bfloat16
    rows = (_CPU_ELEMENTS if on_cpu else _GPU_ELEMENTS) // _WIDE
    inputs = [mx.full((1, _WIDE), 1.0 + i, dtype) for i in range(_QUEUED)]
    multiply: Callable[..., Any]
    if quantization:
        bits, group = quantization["bits"], quantization["group_size"]
        packed = mx.arange(rows * _WIDE * bits // 32, dtype=mx.uint32).reshape(rows, -1)
        scales = mx.full((rows, _WIDE // group), 0.01, dtype)
        weights = [packed, scales, scales * -0.5]
        multiply = partial(mx.quantized_matmul, transpose=True, group_size=group, bits=bits)
    else:
        weights = [(mx.full((rows, _WIDE), 0.01, dtype) * 1).T]
        multiply = mx.matmul
    mx.eval(weights, inputs)
    return (
        lambda: _timed([multiply(x, *weights) for x in inputs], clock, _QUEUED),
        sum(array.nbytes for array in weights),
    )
