"""One decoder layer at one query position, in ten kernels, thirteen where it has its own KV cache.

Each function takes and gives arrays only, so ``mx.compile`` can hold it: then a layer costs one Python call.
"""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels import attention, blocks
from gemma3n_perf.fusions.kernels.common import Kernels, Weights, threads_for
from gemma3n_perf.fusions.kernels.plan import Arrays, Plan
from gemma3n_perf.fusions.kernels.products import Product


def weights(plan: Plan, w: Arrays, *names: str) -> list[Weights]:
    """The named linear layers as a product takes them."""
    return [Weights(w[name], plan.quantized) for name in names]


def _sizes(plan: Plan, threads: int, **more: int) -> dict[str, Any]:
    return {"T": plan.dtype, "H": plan.hidden, "PLANES": plan.planes, "THREADS": threads} | more


def _router(w: Arrays) -> list[tuple[str, mx.array]]:
    return [("router_norm", w["router_norm"]), *zip(("wr", "sr", "br"), w["router"], strict=True)]


def predict(k: Kernels, plan: Plan, w: Arrays, c: mx.array, pe: mx.array | None, pe_norm: mx.array) -> list[mx.array]:
    """AltUp's predictions (planes, 1, 1, hidden) and the active one, normed. ``pe``: what planes 1.. still lack."""
    threads = threads_for(plan.hidden)
    inputs = [
        ("c", c), ("pe", pe_norm if pe is None else pe), ("pe_norm", pe_norm), ("coefs", w["predict"]),
        ("input_norm", w["input_norm"]), ("eps", w["eps"]), *_router(w),
    ]  # fmt: skip
    return k(
        "predict",
        blocks.PREDICT,
        inputs,
        [("p", (plan.planes, 1, 1, plan.hidden), plan.dtype), ("xn", (1, 1, plan.hidden), plan.dtype)],
        blocks=1,
        threads=threads,
        constants=_sizes(plan, threads, NORMED=int(pe is not None)),
    )


def project(k: Kernels, plan: Plan, w: Arrays, xn: mx.array, *, laurel: bool = True) -> mx.array:
    """Queries, keys, values and LAUREL's left half of one input, in that order, in one product."""
    names = ("q",) if plan.shared else ("q", "k", "v")
    rows = [plan.heads * plan.head_dim] + [plan.kv_heads * plan.head_dim] * (len(names) - 1)
    if laurel:
        names, rows = (*names, "left"), [*rows, plan.rank]
    product = Product(f"project{len(rows)}", tuple(rows), plan.hidden, plan.quantized)
    return product(k, [("x", xn)], weights(plan, w, *names), plan.dtype)


def new_keys(k: Kernels, plan: Plan, w: Arrays, qkv: mx.array, at: mx.array) -> list[mx.array]:
    """The new token's keys, normed and rotated, and values, normed: each (1, kv_heads, 1, head_dim)."""
    shape = (1, plan.kv_heads, 1, plan.head_dim)
    inputs = [("qkv", qkv), ("k_norm", w["k_norm"]), ("inv_freq", w["inv_freq"]), ("at", at), ("eps", w["eps"])]
    return k(
        "new_keys",
        attention.NEW_KEYS,
        inputs,
        [("keys", shape, plan.dtype), ("values", shape, plan.dtype)],
        blocks=2 * plan.kv_heads,
        threads=plan.head_dim,
        constants={"T": plan.dtype, "D": plan.head_dim, "HEADS": plan.heads, "KV": plan.kv_heads},
    )


def attend(
    k: Kernels, plan: Plan, w: Arrays, qkv: mx.array, keys: mx.array, values: mx.array, at: mx.array
) -> mx.array:
    """Attention of the new queries over the first ``at[1]`` positions of the cache, through ``o_proj``."""
    threads, splits = 256, attention.splits_for(keys.shape[2])
    inputs = [
        ("qkv", qkv), ("keys", keys), ("values", values), ("q_norm", w["q_norm"]), ("inv_freq", w["inv_freq"]),
        ("at", at), ("eps", w["eps"]),
    ]  # fmt: skip
    part, ml = k(
        "attend",
        attention.ATTEND,
        inputs,
        [("part", (splits, plan.heads, plan.head_dim), mx.float32), ("ml", (splits, plan.heads, 2), mx.float32)],
        blocks=plan.heads * splits,
        threads=threads,
        constants={
            "T": plan.dtype, "D": plan.head_dim, "HEADS": plan.heads, "KV": plan.kv_heads, "SPLITS": splits,
            "THREADS": threads,
        },
    )  # fmt: skip
    product = Product("o_proj", (plan.hidden,), plan.heads * plan.head_dim, plan.quantized, prologue="attention")
    constants = {"HEADS": plan.heads, "SPLITS": splits}
    return product(k, [("part", part), ("ml", ml)], weights(plan, w, "o"), plan.dtype, constants)


def after_attention(
    k: Kernels, plan: Plan, w: Arrays, attn: mx.array, p: mx.array, xn: mx.array, qkvl: mx.array
) -> list[mx.array]:
    """LAUREL, the residual and the norm before the MLP: (residual, normed), each (1, 1, hidden)."""
    threads = threads_for(plan.hidden)
    inputs = [
        ("attn", attn), ("p", p), ("xn", xn), ("ll", qkvl), ("attn_norm", w["attn_norm"]),
        ("laurel_norm", w["laurel_norm"]), ("ffw_norm", w["ffw_norm"]), ("eps", w["eps"]),
        *zip(("wl", "sl", "bl"), w["right"], strict=True),
    ]  # fmt: skip
    shape = (1, 1, plan.hidden)
    return k(
        "after_attention",
        blocks.AFTER_ATTENTION,
        inputs,
        [("al", shape, plan.dtype), ("fn", shape, plan.dtype)],
        blocks=1,
        threads=threads,
        constants=_sizes(plan, threads, RANK=plan.rank, LEFT=plan.left),
    )


def mlp(k: Kernels, plan: Plan, w: Arrays, x: mx.array) -> mx.array:
    """The GeGLU MLP, with or without the cut-off of its gate, in two products."""
    pair = (plan.inner, plan.inner)
    if plan.sparse:
        gate_up = Product("gate_up", pair, plan.hidden, plan.quantized)
        both = gate_up(k, [("x", x)], weights(plan, w, "gate", "up"), plan.dtype)
        down = Product("down_sparse", (plan.hidden,), plan.inner, plan.quantized, prologue="sparse")
        inputs = [("x", both), ("multiplier", w["multiplier"])]
        return down(k, inputs, weights(plan, w, "down"), plan.dtype)
    geglu = Product("geglu", pair, plan.hidden, plan.quantized, epilogue="geglu", paired=True)
    active = geglu(k, [("x", x)], weights(plan, w, "gate", "up"), plan.dtype)
    down = Product("down", (plan.hidden,), plan.inner, plan.quantized)
    return down(k, [("x", active)], weights(plan, w, "down"), plan.dtype)


def correct(k: Kernels, plan: Plan, w: Arrays, x: mx.array, residual: mx.array | None, p: mx.array) -> list[mx.array]:
    """AltUp's corrected planes and the scaled active one. Without ``residual``, ``x`` is the activated plane itself."""
    threads = threads_for(plan.hidden)
    inputs = [
        ("ff", x), ("al", x if residual is None else residual), ("p", p), ("ffw_norm", w["post_ffw_norm"]),
        ("coefs", w["correct"]), ("out_scale", w["out_scale"]), ("eps", w["eps"]), *_router(w),
    ]  # fmt: skip
    return k(
        "correct",
        blocks.CORRECT,
        inputs,
        [("c", (plan.planes, 1, 1, plan.hidden), plan.dtype), ("gi", (1, 1, plan.hidden), plan.dtype)],
        blocks=1,
        threads=threads,
        constants=_sizes(plan, threads, NORMED=int(residual is not None)),
    )


def per_layer(k: Kernels, plan: Plan, w: Arrays, gi: mx.array, per_layer_input: mx.array) -> mx.array:
    """The gated per-layer input, projected to (1, 1, hidden), not yet normed."""
    gate = Product("pe_gate", (plan.per_layer,), plan.hidden, plan.quantized, epilogue="gate", rows_per_warp=1)
    gated = gate(k, [("x", gi), ("per_layer", per_layer_input)], weights(plan, w, "pe_gate"), plan.dtype)
    project = Product("pe_proj", (plan.hidden,), plan.per_layer, plan.quantized)
    return project(k, [("x", gated)], weights(plan, w, "pe_proj"), plan.dtype)


def before_cache(
    k: Kernels, plan: Plan, w: Arrays, c: mx.array, pe: mx.array | None, pe_norm: mx.array, at: mx.array
) -> list[mx.array]:
    """A layer up to its KV cache: predictions, normed input, products, and the new keys and values where it has any."""
    p, xn = predict(k, plan, w, c, pe, pe_norm)
    qkvl = project(k, plan, w, xn)
    return [p, xn, qkvl] if plan.shared else [p, xn, qkvl, *new_keys(k, plan, w, qkvl, at)]


def after_cache(
    k: Kernels, plan: Plan, w: Arrays, state: list[mx.array], keys: mx.array, values: mx.array, at: mx.array,
    per_layer_input: mx.array,
) -> list[mx.array]:  # fmt: skip
    """The rest of a layer: corrected planes, and what planes 1.. still lack, before its norm."""
    p, xn, qkvl = state[:3]
    attn = attend(k, plan, w, qkvl, keys, values, at)
    residual, normed = after_attention(k, plan, w, attn, p, xn, qkvl)
    c, gi = correct(k, plan, w, mlp(k, plan, w, normed), residual, p)
    return [c, per_layer(k, plan, w, gi, per_layer_input)]
