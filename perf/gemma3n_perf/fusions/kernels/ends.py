"""Before the first layer and after the last: embeddings and AltUp's planes in three kernels, logits in three."""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels import blocks
from gemma3n_perf.fusions.kernels.common import Kernels, Weights, fits, threads_for
from gemma3n_perf.fusions.kernels.plan import Arrays, Plan
from gemma3n_perf.fusions.kernels.plan import readable as readable_layer
from gemma3n_perf.fusions.kernels.products import Product

_THREADS = 256


def linears(text: Any) -> list[Any]:
    """Every embedding and linear layer outside the decoder layers."""
    own = [text.embed_tokens, text.embed_tokens_per_layer, text.per_layer_model_projection]
    return [*own, *text.altup_projections, *text.altup_unembed_projections]


def readable(language_model: Any) -> bool:
    """Whether a whole step can be decoded from this model's weights: every layer, and what is around them."""
    text = language_model.model
    found = linears(text)
    around = all(fits(each) for each in found) and len({"scales" in each for each in found}) == 1
    inside = all(readable_layer(layer) for layer in text.layers)
    return around and inside and language_model.final_logit_softcapping is not None


def gather(language_model: Any) -> Arrays:
    """Their arrays, by the names used below."""
    text = language_model.model
    return {
        "eps": mx.array([text.config.rms_norm_eps], mx.float32),
        "embed": Weights.of(text.embed_tokens).arrays,
        "embed_per_layer": Weights.of(text.embed_tokens_per_layer).arrays,
        "model_projection": Weights.of(text.per_layer_model_projection).arrays,
        "projections": [Weights.of(each).arrays for each in text.altup_projections],
        "unembed": [Weights.of(each).arrays for each in text.altup_unembed_projections],
        "layer_norm": text.per_layer_projection_norm.weight,
        "norm": text.norm.weight,
        "cap": mx.array([language_model.final_logit_softcapping or 0.0], mx.float32),
    }


def begin(k: Kernels, plan: Plan, w: Arrays, token: mx.array, *, layers: int, limit: int) -> list[mx.array]:
    """From a token id to the first layer's planes (planes, 1, 1, hidden) and per-layer inputs (layers, per_layer)."""
    wide = layers * plan.per_layer
    h0, gathered = k(
        "embed",
        blocks.EMBED,
        [
            ("token", token),
            *zip(("we", "se", "be"), w["embed"], strict=True),
            *zip(("wp", "sp", "bp"), w["embed_per_layer"], strict=True),
        ],
        [("h0", (1, 1, plan.hidden), plan.dtype), ("pl", (wide,), plan.dtype)],
        blocks=-(-(plan.hidden + wide) // _THREADS),
        threads=_THREADS,
        constants={
            "T": plan.dtype, "H": plan.hidden, "WIDE": wide, "P": plan.per_layer, "LIMIT": limit, "THREADS": _THREADS,
        },
    )  # fmt: skip
    rows = (wide, *[plan.hidden] * (plan.planes - 1))
    matrices = [Weights(a, plan.quantized) for a in (w["model_projection"], *w["projections"])]
    raw = Product("begin", rows, plan.hidden, plan.quantized)(k, [("x", h0)], matrices, plan.dtype)
    return k(
        "prepare",
        blocks.PREPARE,
        [("raw", raw), ("h0", h0), ("pl", gathered), ("layer_norm", w["layer_norm"]), ("eps", w["eps"])],
        [("pli", (layers, plan.per_layer), plan.dtype), ("c", (plan.planes, 1, 1, plan.hidden), plan.dtype)],
        blocks=layers + plan.planes,
        threads=_THREADS,
        constants={
            "T": plan.dtype, "H": plan.hidden, "P": plan.per_layer, "LAYERS": layers, "THREADS": _THREADS,
        },
    )  # fmt: skip


def finish(k: Kernels, plan: Plan, w: Arrays, c: mx.array, pe: mx.array, pe_norm: mx.array, vocab: int) -> mx.array:
    """From the last layer's planes to logits, shape (1, 1, vocab)."""
    rows = (plan.hidden,) * (plan.planes - 1)
    unembed = Product("unembed", rows, plan.hidden, plan.quantized, prologue="last")
    inputs = [("x", c), ("pe", pe), ("pe_norm", pe_norm), ("eps", w["eps"])]
    u = unembed(k, inputs, [Weights(a, plan.quantized) for a in w["unembed"]], plan.dtype)
    threads = threads_for(plan.hidden)
    (out,) = k(
        "finish",
        blocks.FINISH,
        [("c", c), ("u", u), ("norm", w["norm"]), ("eps", w["eps"])],
        [("out", (1, 1, plan.hidden), plan.dtype)],
        blocks=1,
        threads=threads,
        constants={"T": plan.dtype, "H": plan.hidden, "PLANES": plan.planes, "THREADS": threads},
    )
    head = Product("head", (vocab,), plan.hidden, plan.quantized, epilogue="softcap", rows_per_warp=4)
    return head(k, [("x", out), ("cap", w["cap"])], [Weights(w["embed"], plan.quantized)], plan.dtype)
