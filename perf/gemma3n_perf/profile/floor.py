"""The streaming floor: one token's weight products alone, through the model's own layers, in one graph.

A floor is measured with the kernels that decode uses, not computed from a data sheet. All layers are distinct, so that
no cache helps; KV-shared layers skip what the model skips; the products feed one another without glue, so that they run
one after the other as in decode; several tokens go in one dispatch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.profile.products import bytes_by_part, expected_calls, products
from gemma3n_perf.profile.rounds import Rounds, estimate
from gemma3n_perf.profile.types import Floor

_CPU_ELEMENTS, _GPU_ELEMENTS = 1 << 22, 1 << 30
_QUEUED = 4
_WIDE = 4096


@dataclass(frozen=True, slots=True)
class Setting:
    """What the floor is measured on: a loaded model, its config, the bytes its headers say a token streams.

    ``decode`` times some tokens of the real loop and returns seconds per token, for a share that is paired.
    """

    model: Any
    config: dict[str, Any]
    streamed_bytes: int
    decode: Callable[[], float]
    copy_bandwidth: Callable[[], float]
    tokens: int = 4


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


def measure(setting: Setting, clock: Clock, rounds: Rounds) -> Floor:
    """Time the chain, one large product and decode in interleaved rounds."""
    product, moved = _large_product(setting.config, clock)
    chain = _chain(setting, clock)
    chain(), product()  # compiles and warms
    found = rounds.interleave({"chain": chain, "gemv": product, "decode": lambda: (setting.decode(), 0.0)})
    (chain_s, dispatch_s), (product_s, _), (decode_s, _) = (np.transpose(values) for values in found.values())
    calls = expected_calls(setting.config)["quantized_matmul"]
    return Floor(
        products=calls or sum(one.modules * one.uses for one in products(setting.config["text_config"])),
        streamed_bytes=setting.streamed_bytes,
        by_part=bytes_by_part(setting.config),
        chain_s=estimate(chain_s),
        dispatch_s=estimate(dispatch_s),
        tpot_s=estimate(decode_s),
        share=estimate(chain_s / decode_s),
        gemv_bandwidth=estimate(moved / product_s),
        copy_bandwidth=setting.copy_bandwidth(),
    )


def _timed(outputs: Any, clock: Clock, tokens: int) -> tuple[float, float]:
    """Compute ``outputs``; returns the seconds for each of ``tokens``, and those of them that dispatching took."""
    import mlx.core as mx

    begin = clock()
    mx.async_eval(outputs)
    dispatched = clock()
    mx.eval(outputs)
    return (clock() - begin) / tokens, (dispatched - begin) / tokens


def _chain(setting: Setting, clock: Clock) -> Callable[[], tuple[float, float]]:
    """Return a function that takes seconds per token, and those of them that dispatching took."""
    import mlx.core as mx

    language_model, tokens = setting.model.language_model, setting.tokens
    dtype = language_model.model.norm.weight.dtype
    start = mx.ones((1, 1, setting.config["text_config"]["hidden_size"]), dtype)
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
