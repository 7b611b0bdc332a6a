"""One decoder layer at one query position from MLX's own operations, written for ``mx.compile``.

Whatever the token does not change is prepared once (coefficients, scales of all heads, rotations), vectors
keep two dimensions, and attention stays outside: its length changes at every step, and would compile anew.
"""

from typing import Any

import mlx.core as mx
import mlx.nn as nn

from gemma3n_perf.fusions.kernels.plan import Arrays, Plan
from gemma3n_perf.fusions.stacked_altup import mix


def prepare(plan: Plan, w: Arrays) -> Arrays:
    """``plan.gather``'s arrays, with what this path needs besides."""
    heads = mx.broadcast_to(w["q_norm"], (plan.heads, plan.head_dim))
    if not plan.shared:
        heads = mx.concatenate([heads, mx.broadcast_to(w["k_norm"], (plan.kv_heads, plan.head_dim))])
    lacking = mx.array([0.0] + [1.0] * (plan.planes - 1), plan.dtype).reshape(plan.planes, 1)
    if plan.sparse:
        w = w | {"multiplier": w["multiplier"][:1]}
    return w | {
        "head_norm": heads,
        "router_norm": w["router_norm"] * (plan.hidden**-1.0),  # a power of two: exact
        "predict": w["predict"].T,
        "correct": w["correct"].T,
        "identity": mx.eye(plan.planes).reshape(1, -1),
        "ones": mx.ones((1, plan.planes)),
        "lacking": lacking,
        "eps": mx.array(0.0),
    }


def linear(plan: Plan, arrays: tuple[mx.array, mx.array, mx.array], x: mx.array) -> mx.array:
    """A linear layer's product, four-bit or dense."""
    if plan.quantized:
        return mx.quantized_matmul(x, *arrays, transpose=True, group_size=64, bits=4)
    return x @ arrays[0].T


def _norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
    return mx.fast.rms_norm(x, weight, eps)


def _modalities(plan: Plan, w: Arrays, x: mx.array, eps: float) -> mx.array:
    return mx.tanh(linear(plan, w["router"], _norm(x, w["router_norm"], eps)).astype(mx.float32))


def before_cache(
    plan: Plan, eps: float, w: Arrays, c: mx.array, pe: mx.array | None, pe_norm: mx.array | None, position: mx.array
) -> list[mx.array]:
    """From planes (planes, hidden) to [predictions, normed input, LAUREL's left half, queries (, keys, values)]."""
    if pe is not None:
        c = c + w["lacking"] * _norm(pe, pe_norm, eps)
    n = plan.planes
    mixing = mx.addmm(w["identity"], _modalities(plan, w, c[:1], eps), w["predict"]).reshape(n, n)
    p = mix(mixing, c.astype(mx.float32)).astype(plan.dtype)
    xn = _norm(p[:1], w["input_norm"], eps)
    names = ("q",) if plan.shared else ("q", "k", "v")
    joined = [linear(plan, w[name], xn) for name in names]
    left = linear(plan, w["left"], xn)
    rows = (joined[0] if plan.shared else mx.concatenate(joined, axis=-1)).reshape(-1, plan.head_dim)
    normed = _norm(rows, None, eps)
    turning = plan.heads if plan.shared else plan.heads + plan.kv_heads
    turned = rotate(normed[:turning] * w["head_norm"], position, w["inv_freq"])
    shaped = turned.reshape(1, turning, 1, plan.head_dim)
    if plan.shared:
        return [p, xn, left, shaped]
    values = normed[turning:].reshape(1, plan.kv_heads, 1, plan.head_dim)
    return [p, xn, left, shaped[:, : plan.heads], shaped[:, plan.heads :], values]


def rotate(x: mx.array, position: mx.array, inv_freq: mx.array) -> mx.array:
    """RoPE of heads (heads, head_dim), halves paired, all at one ``position``: elementwise, so it compiles into one."""
    half = x.shape[-1] // 2
    angle = position.astype(mx.float32) * inv_freq
    cos, sin = mx.cos(angle), mx.sin(angle)
    a, b = x[:, :half].astype(mx.float32), x[:, half:].astype(mx.float32)
    return mx.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


def attend(plan: Plan, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Attention of one position, shape (1, heads * head_dim)."""
    grouped = queries.reshape(1, plan.kv_heads, plan.heads // plan.kv_heads, plan.head_dim)
    scores = mx.softmax(grouped @ keys.swapaxes(-1, -2), axis=-1, precise=True)
    return (scores @ values).reshape(1, plan.heads * plan.head_dim)


def after_cache(
    plan: Plan, eps: float, w: Arrays, state: list[mx.array], attn: mx.array, pli: mx.array
) -> list[mx.array]:
    """The rest of the layer: corrected planes (planes, hidden), and what planes 1.. lack before its norm."""
    p, xn, left = state
    o = _norm(linear(plan, w["o"], attn), w["attn_norm"], eps)
    laurel = xn + _norm(linear(plan, w["right"], left), w["laurel_norm"], eps)
    residual = (p[:1] + o + laurel) * (2.0**-0.5)
    x = _norm(residual, w["ffw_norm"], eps)
    gate, up = linear(plan, w["gate"], x), linear(plan, w["up"], x)
    if plan.sparse:
        centred = gate - mx.mean(gate, axis=-1, keepdims=True)
        deviation = mx.sqrt(mx.mean(centred * centred, axis=-1, keepdims=True))
        gate = mx.maximum(0, centred - deviation * w["multiplier"].astype(gate.dtype))
    down = linear(plan, w["down"], nn.gelu_approx(gate) * up)
    active = residual + _norm(down, w["post_ffw_norm"], eps)
    n = plan.planes
    factors = mx.addmm(w["ones"], _modalities(plan, w, active, eps), w["correct"]).reshape(n, 1)
    c = (factors * (active - p[:1]) + p).astype(plan.dtype)
    gated = nn.gelu_approx(linear(plan, w["pe_gate"], c[:1] * w["out_scale"])) * pli
    return [c, linear(plan, w["pe_proj"], gated)]


def row(arrays: tuple[mx.array, mx.array, mx.array], quantized: bool, index: mx.array) -> mx.array:
    """One row of an embedding, shape (1, width). On a CPU the four-bit one is unpacked here, in one compiled piece."""
    w, s, b = arrays
    if not quantized:
        return w[index]
    if mx.default_device().type == mx.DeviceType.gpu:
        return mx.dequantize(w[index], s[index], b[index], group_size=64, bits=4)
    packed, scales, biases = w[index], s[index], b[index]
    shifts = mx.array([4 * i for i in range(8)], mx.uint32)
    unpacked = ((packed[..., None] >> shifts) & 15).astype(s.dtype).reshape(1, -1, 64)
    return (unpacked * scales[..., None] + biases[..., None]).reshape(1, -1)


def begin(plan: Plan, eps: float, w: Arrays, token: mx.array, *, layers: int, limit: int) -> list[Any]:
    """From a token id to planes (planes, hidden) and per-layer inputs (layers, 1, per_layer)."""
    index = token.reshape(1)
    h0 = row(w["embed"], plan.quantized, index) * (plan.hidden**0.5)
    known = mx.where(index < limit, index, mx.zeros_like(index))
    gathered = row(w["embed_per_layer"], plan.quantized, known) * (plan.per_layer**0.5)
    projected = linear(plan, w["model_projection"], h0) * (plan.hidden**-0.5)
    normed = _norm(projected.reshape(layers, 1, plan.per_layer), w["layer_norm"], eps)
    pli = (normed + gathered.reshape(layers, 1, plan.per_layer)) * (2.0**-0.5)
    others = mx.concatenate([linear(plan, each, h0) for each in w["projections"]])
    target = mx.sqrt(mx.mean(h0 * h0, axis=-1, keepdims=True))
    scaled = others * (target / mx.sqrt(mx.mean(others * others, axis=-1, keepdims=True)))
    return [mx.concatenate([h0, scaled]), pli.astype(plan.dtype)]


def finish(plan: Plan, eps: float, w: Arrays, c: mx.array, pe: mx.array, pe_norm: mx.array) -> mx.array:
    """From the last layer's planes to logits, shape (1, 1, vocabulary)."""
    added = c[1:] + _norm(pe, pe_norm, eps)
    others = mx.concatenate([linear(plan, each, added[i : i + 1]) for i, each in enumerate(w["unembed"])])
    target = mx.sqrt(mx.mean(c[:1] * c[:1], axis=-1, keepdims=True))
    others = others * (target / mx.sqrt(mx.mean(others * others, axis=-1, keepdims=True)))
    mean = (c[:1] + mx.sum(others, axis=0, keepdims=True)) * (1.0 / plan.planes)
    logits = linear(plan, w["embed"], _norm(mean, w["norm"], eps))
    cap = w["cap"].astype(logits.dtype)
    capped: mx.array = mx.tanh(logits / cap) * cap
    return capped[None]
