"""Query, key and value heads normed and rotated together at one position, on any device.

The three products stay apart (joined weights would cost their memory again); their results are joined, so that a
layer has one norm and one rotation instead of three and two, and no transposes.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Replace attention at one position of batch 1, SDPA and cache as they are."""
    for layer in model.language_model.model.layers:
        attention = layer.self_attn
        call = _shared(attention) if attention.is_kv_shared_layer else _own(attention)
        patching.wrap(attention, "__call__", call)


def _own(attention: Any) -> Callable[..., Any]:
    heads, kv, dim = attention.n_heads, attention.n_kv_heads, attention.head_dim
    q, k = attention.q_norm, attention.k_norm
    scales = mx.concatenate([mx.broadcast_to(q.weight, (heads, dim)), mx.broadcast_to(k.weight, (kv, dim))])
    scales = scales.reshape(1, heads + kv, 1, dim)
    mx.eval(scales)

    def call(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
        if mask is not None or x.shape[:2] != (1, 1) or not patching.plain_cache(cache):
            return original(x, mask, cache)
        joined = mx.concatenate([attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)], axis=-1)
        normed = mx.fast.rms_norm(joined.reshape(1, heads + 2 * kv, 1, dim), None, q.eps)
        rotated = attention.rope(normed[:, : heads + kv] * scales, offset=cache.offset)
        keys, values = cache.update_and_fetch(rotated[:, heads:], normed[:, heads + kv :])
        out = mx.fast.scaled_dot_product_attention(rotated[:, :heads], keys, values, scale=attention.scale)
        return attention.o_proj(out.reshape(1, 1, -1))

    return call


def _shared(attention: Any) -> Callable[..., Any]:
    heads, dim, q = attention.n_heads, attention.head_dim, attention.q_norm

    def call(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
        if mask is not None or x.shape[:2] != (1, 1) or not patching.plain_cache(cache):
            return original(x, mask, cache)
        normed = mx.fast.rms_norm(attention.q_proj(x).reshape(1, heads, 1, dim), q.weight, q.eps)
        rotated = attention.rope(normed, offset=cache.offset)
        keys, values = cache.state
        out = mx.fast.scaled_dot_product_attention(rotated, keys, values, scale=attention.scale)
        return attention.o_proj(out.reshape(1, 1, -1))

    return call


FUSION = Fusion(
    name="fused-qkv",
    summary="QK norm and RoPE of all heads in one norm and one rotation, without transposes",
    replaces=("Gemma3nAttention.__call__",),
    graph=Declared(fewer=("calls.rms_norm", "calls.rope", "operations.Transpose")),
    file=__file__,
    apply=apply,
)
