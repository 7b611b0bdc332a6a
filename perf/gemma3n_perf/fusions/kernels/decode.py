"""A decode step at one query position: kernels' bodies, and which arrays each reads.

Each function takes what runs a body (``Kernels``: a launch each; ``Phases``: a part of one launch) and arrays or
placeholders only. Products stream weights; what lies between them needs all of a hidden state, and any block can make
it for itself. MLX's own attention kernels stop at head_dim 128, and the rest is decomposed into a dozen.
"""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels.common import Shapes, source, threads_for
from gemma3n_perf.fusions.kernels.phases import Phases, Runner
from gemma3n_perf.fusions.kernels.plan import Arrays, Plan
from gemma3n_perf.fusions.kernels.products import Product, labelled

SPLITS = 16
"""Blocks at most that share one head's cache: one query row needs no tiles, only enough to keep the memory busy."""


def _in_one_block(
    k: Runner, plan: Plan, name: str, text: str, inputs: dict[str, Any], outputs: Shapes, **more: int
) -> list[Any]:
    """Run what needs all of a hidden state: E elements a thread, element ``i = tid + e * THREADS``."""
    threads = threads_for(plan.hidden)
    sizes = {"T": plan.dtype, "H": plan.hidden, "PLANES": plan.planes, "THREADS": threads, **more}
    return k(name, text, inputs, outputs, plan.dtype, blocks=1, threads=threads, constants=sizes, everywhere=True)


def begin(k: Phases, plan: Plan, w: Arrays, token: mx.array, *, layers: int, limit: int) -> list[Any]:
    """From a token id to per-layer inputs (layers, per_layer) and the first layer's planes (planes, 1, 1, hidden)."""
    wide = layers * plan.per_layer
    h0, gathered = k(
        "embed",
        source("embed"),
        {"token": token, **labelled("e", w["embed"]), **labelled("p", w["embed_per_layer"])},
        {"h0": (1, 1, plan.hidden), "pl": (wide,)},
        plan.dtype,
        blocks=-(-(plan.hidden + wide) // k.threads),
        threads=k.threads,
        constants={
            "T": plan.dtype, "H": plan.hidden, "WIDE": wide, "P": plan.per_layer, "LIMIT": limit, "THREADS": k.threads,
        },
    )  # fmt: skip
    rows = (wide, *[plan.hidden] * (plan.planes - 1))
    raw = Product(plan, "begin", rows, plan.hidden)(k, {"x": h0}, [w["model_projection"], *w["projections"]])
    return k(
        "prepare",
        source("prepare"),
        {"raw": raw, "h0": h0, "pl": gathered, "layer_norm": w["layer_norm"], "eps": w["eps"]},
        {"pli": (layers, plan.per_layer), "c": (plan.planes, 1, 1, plan.hidden)},
        plan.dtype,
        blocks=layers + plan.planes,
        threads=k.threads,
        constants={"T": plan.dtype, "H": plan.hidden, "P": plan.per_layer, "LAYERS": layers, "THREADS": k.threads},
    )


def predict(k: Runner, plan: Plan, w: Arrays, c: Any, pe: Any, pe_norm: Any) -> list[Any]:
    """AltUp's predictions (planes, 1, 1, hidden) and the active one, normed. ``pe``: what planes 1.. still lack."""
    inputs = {
        "c": c, "pe": pe_norm if pe is None else pe, "pe_norm": pe_norm, "coefs": w["predict"],
        "input_norm": w["input_norm"], "eps": w["eps"], "router_norm": w["router_norm"], **labelled("r", w["router"]),
    }  # fmt: skip
    outputs = {"p": (plan.planes, 1, 1, plan.hidden), "xn": (1, 1, plan.hidden)}
    return _in_one_block(k, plan, "predict", source("predict"), inputs, outputs, NORMED=int(pe is not None))


def project(k: Runner, plan: Plan, w: Arrays, xn: Any, *, laurel: bool = True) -> Any:
    """Queries, keys, values and LAUREL's left half of one input, in that order, in one product."""
    rows = {"q": plan.heads * plan.head_dim}
    if not plan.shared:
        rows |= dict.fromkeys(("k", "v"), plan.kv_heads * plan.head_dim)
    if laurel:
        rows["left"] = plan.rank
    product = Product(plan, f"project{len(rows)}", tuple(rows.values()), plan.hidden)
    return product(k, {"x": xn}, [w[name] for name in rows])


def new_keys(k: Runner, plan: Plan, w: Arrays, qkv: Any, at: Any) -> list[Any]:
    """The new token's keys, normed and rotated, and values, normed: each (1, kv_heads, 1, head_dim)."""
    return k(
        "new_keys",
        source("new_keys"),
        {"qkv": qkv, "k_norm": w["k_norm"], "inv_freq": w["inv_freq"], "at": at, "eps": w["eps"]},
        dict.fromkeys(("keys", "values"), (1, plan.kv_heads, 1, plan.head_dim)),
        plan.dtype,
        blocks=2 * plan.kv_heads,
        threads=plan.head_dim,
        constants={
            "T": plan.dtype, "D": plan.head_dim, "HEADS": plan.heads, "KV": plan.kv_heads, "THREADS": plan.head_dim,
        },
    )  # fmt: skip


def attend(k: Runner, plan: Plan, w: Arrays, qkv: Any, keys: Any, values: Any, at: Any) -> Any:
    """Attention of the new queries over the first ``at[1]`` positions of the cache, through ``o_proj``."""
    sizes = {"HEADS": plan.heads, "SPLITS": SPLITS}
    part, ml = k(
        "attend",
        source("attend"),
        {
            "qkv": qkv, "keys": keys, "values": values, "q_norm": w["q_norm"], "inv_freq": w["inv_freq"], "at": at,
            "eps": w["eps"],
        },
        {"part": (SPLITS, plan.heads, plan.head_dim), "ml": (SPLITS, plan.heads, 2)},
        mx.float32,
        blocks=plan.heads * SPLITS,
        threads=k.threads,
        constants={"T": plan.dtype, "D": plan.head_dim, "KV": plan.kv_heads, "THREADS": k.threads, **sizes},
    )  # fmt: skip
    product = Product(plan, "o_proj", (plan.hidden,), plan.heads * plan.head_dim, prologue="attention")
    return product(k, {"part": part, "ml": ml, "positions": at}, [w["o"]], **sizes)


def laurel(k: Runner, plan: Plan, w: Arrays, qkvl: Any) -> Any:
    """LAUREL's right half of what its left half gave in the joint product: (1, 1, hidden), not yet normed."""
    return Product(plan, "laurel", (plan.hidden,), plan.rank)(k, {"x": qkvl}, [w["right"]], X_AT=plan.left)


def after_attention(k: Runner, plan: Plan, w: Arrays, attn: Any, p: Any, xn: Any, right: Any) -> list[Any]:
    """The residual and the norm before the MLP: (residual, normed), each (1, 1, hidden)."""
    inputs = {
        "attn": attn, "p": p, "xn": xn, "ll": right, "attn_norm": w["attn_norm"], "laurel_norm": w["laurel_norm"],
        "ffw_norm": w["ffw_norm"], "eps": w["eps"],
    }  # fmt: skip
    return _in_one_block(
        k, plan, "after_attention", source("after_attention"), inputs, dict.fromkeys(("al", "fn"), (1, 1, plan.hidden))
    )


def mlp(k: Runner, plan: Plan, w: Arrays, x: Any) -> Any:
    """The GeGLU MLP, with or without the cut-off of its gate, in two products."""
    pair, weights = (plan.inner, plan.inner), [w["gate"], w["up"]]
    if plan.sparse:
        both = Product(plan, "gate_up", pair, plan.hidden)(k, {"x": x}, weights)
        down = Product(plan, "down_sparse", (plan.hidden,), plan.inner, prologue="sparse")
        return down(k, {"x": both, "multiplier": w["multiplier"]}, [w["down"]])
    active = Product(plan, "geglu", pair, plan.hidden, epilogue="geglu", paired=True)(k, {"x": x}, weights)
    return Product(plan, "down", (plan.hidden,), plan.inner)(k, {"x": active}, [w["down"]])


def correct(k: Runner, plan: Plan, w: Arrays, x: Any, residual: Any, p: Any) -> list[Any]:
    """AltUp's corrected planes and the scaled active one."""
    inputs = {
        "ff": x, "al": residual, "p": p, "ffw_norm": w["post_ffw_norm"], "coefs": w["correct"],
        "out_scale": w["out_scale"], "eps": w["eps"], "router_norm": w["router_norm"], **labelled("r", w["router"]),
    }  # fmt: skip
    outputs = {"c": (plan.planes, 1, 1, plan.hidden), "gi": (1, 1, plan.hidden)}
    return _in_one_block(k, plan, "correct", source("correct"), inputs, outputs)


def per_layer(k: Runner, plan: Plan, w: Arrays, gi: Any, given: Any, layer: Any) -> Any:
    """The gated per-layer input, row ``layer[0]`` of ``given``, projected to (1, 1, hidden), not yet normed."""
    gate = Product(plan, "pe_gate", (plan.per_layer,), plan.hidden, epilogue="gate")
    gated = gate(k, {"x": gi, "per_layer": given, "layer": layer}, [w["pe_gate"]])
    return Product(plan, "pe_proj", (plan.hidden,), plan.per_layer)(k, {"x": gated}, [w["pe_proj"]])


def before_cache(k: Phases, plan: Plan, w: Arrays, c: Any, pe: Any, pe_norm: Any, at: Any) -> list[Any]:
    """A layer up to its KV cache: predictions, normed input, products, and the new keys and values where it has any."""
    p, xn = predict(k, plan, w, c, pe, pe_norm)
    qkvl = project(k, plan, w, xn)
    return [p, xn, qkvl] if plan.shared else [p, xn, qkvl, *new_keys(k, plan, w, qkvl, at)]


def after_cache(
    k: Phases, plan: Plan, w: Arrays, state: list[Any], keys: Any, values: Any, at: Any, given: Any, layer: Any
) -> list[Any]:
    """The rest of a layer: corrected planes, and what planes 1.. still lack, before its norm."""
    p, xn, qkvl = state[:3]
    right = laurel(k, plan, w, qkvl)
    attn = attend(k, plan, w, qkvl, keys, values, at)
    residual, normed = after_attention(k, plan, w, attn, p, xn, right)
    c, gi = correct(k, plan, w, mlp(k, plan, w, normed), residual, p)
    return [c, per_layer(k, plan, w, gi, given, layer)]


def finish(k: Phases, plan: Plan, w: Arrays, c: Any, pe: Any, pe_norm: Any, *, vocab: int) -> list[Any]:
    """From the last layer's planes to logits, shape (1, 1, vocab), and what they are made of, (1, 1, hidden)."""
    unembed = Product(plan, "unembed", (plan.hidden,) * (plan.planes - 1), plan.hidden, prologue="last")
    u = unembed(k, {"x": c, "pe": pe, "pe_norm": pe_norm, "eps": w["eps"]}, w["unembed"])
    inputs = {"c": c, "u": u, "norm": w["norm"], "eps": w["eps"]}
    (out,) = _in_one_block(k, plan, "finish", source("finish"), inputs, {"out": (1, 1, plan.hidden)})
    head = Product(plan, "head", (vocab,), plan.hidden, epilogue="softcap")
    return [head(k, {"x": out, "cap": w["caps"]}, [w["embed"]]), out]
