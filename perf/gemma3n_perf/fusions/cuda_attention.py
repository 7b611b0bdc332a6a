"""Decode attention on CUDA: q, k and v in one product, norms and rotation in the kernels that use them, and no SDPA.

MLX's own kernels stop at head_dim 128; Gemma3n's 256 falls apart into a dozen kernels there.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.types import Declared, Fusion


def apply_with(model: Any, make: Make, compiled: Callable[..., Any]) -> None:
    """Replace attention at one position of batch 1."""
    kernels = Kernels(make)

    def first(sizes: plan.Plan, w: plan.Arrays, x: Any, at: Any) -> list[Any]:
        qkv = decode.project(kernels, sizes, w, x, laurel=False)
        return [qkv] if sizes.shared else [qkv, *decode.new_keys(kernels, sizes, w, qkv, at)]

    def second(sizes: plan.Plan, w: plan.Arrays, qkv: Any, keys: Any, values: Any, at: Any) -> Any:
        return decode.attend(kernels, sizes, w, qkv, keys, values, at)

    before, after = plan.PerPlan(first, compiled), plan.PerPlan(second, compiled)
    for layer in model.language_model.model.layers:
        if plan.readable(layer):
            patching.wrap(layer.self_attn, "__call__", _attention(before, after, layer))


def _attention(before: plan.PerPlan, after: plan.PerPlan, layer: Any) -> Callable[..., Any]:
    sizes = plan.plan(layer)
    project, attend = before(sizes), after(sizes)
    weights = plan.LayerArrays(layer, names=("q", "k", "v", "o", "q_norm", "k_norm", "inv_freq", "eps"))

    def attention(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
        if mask is not None or x.shape[:2] != (1, 1) or not patching.plain_cache(cache):
            return original(x, mask, cache)
        w = weights()
        position = cache.offset
        qkv, *new = project(w, x, mx.array([position, 0, 0], mx.int32))
        if new:
            cache.update_and_fetch(*new)
        capacity = cache.keys.shape[2]
        at = mx.array([position, min(cache.offset, capacity), capacity], mx.int32)
        return attend(w, qkv, cache.keys, cache.values, at)

    return attention


FUSION = Fusion(
    name="cuda-attention",
    summary="q, k and v in one product; QK norm, RoPE and attention at head_dim 256 in three CUDA kernels",
    replaces=("Gemma3nAttention.__call__",),
    graph=Declared(
        fewer=("nodes", "calls.rope", "calls.scaled_dot_product_attention"), more=("operations.CustomKernel",)
    ),
    file=__file__,
    enabled=backend.on_nvidia,
    where=backend.WEIGHTS,
    apply=backend.on_cuda(apply_with),
)
