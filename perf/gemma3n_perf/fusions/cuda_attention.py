"""Decode attention on CUDA: q, k and v in one product, norms and rotation in the kernels that use them, and no SDPA.

MLX's own kernels stop at head_dim 128; Gemma3n's 256 falls apart into a dozen kernels there.
"""

from functools import partial
from typing import Any

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make


def apply_with(model: Any, make: Make, compiled: plan.Compile) -> None:
    """Replace attention at one position of batch 1."""
    kernels = Kernels(make)

    def first(sizes: plan.Plan, w: plan.Arrays, x: Any, at: Any) -> list[Any]:
        qkv = decode.project(kernels, sizes, w, x, laurel=False)
        return [qkv] if sizes.shared else [qkv, *decode.new_keys(kernels, sizes, w, qkv, at)]

    before, after = plan.per_plan(first, compiled), plan.per_plan(partial(decode.attend, kernels), compiled)
    for layer in plan.readable_layers(model):
        sizes = plan.plan(layer)
        patching.wrap(layer.self_attn, "__call__", _attention(before(sizes), after(sizes), layer))


def _attention(project: plan.Function, attend: plan.Function, layer: Any) -> plan.Function:
    weights = plan.LayerArrays(layer, plan.only("q", "k", "v", "o", "q_norm", "k_norm", "inv_freq", "eps"))

    def attention(original: Any, x: Any, mask: Any = None, cache: Any = None) -> Any:
        if mask is not None or x.shape[:2] != (1, 1) or not patching.plain_cache(cache):
            return original(x, mask, cache)
        w = weights()
        position = cache.offset
        qkv, *new = project(w, x, plan.places(position, 0, 0))
        if new:
            cache.update_and_fetch(*new)
        capacity = cache.keys.shape[2]
        at = plan.places(position, min(cache.offset, capacity), capacity)
        return attend(w, qkv, cache.keys, cache.values, at)

    return attention


FUSION = backend.of_kernels(
    "cuda-attention",
    "q, k and v in one product; QK norm, RoPE and attention at head_dim 256 in three CUDA kernels",
    ("Gemma3nAttention.__call__",),
    apply_with,
    file=__file__,
    fewer=("nodes", "calls.rope", "calls.scaled_dot_product_attention"),
)
