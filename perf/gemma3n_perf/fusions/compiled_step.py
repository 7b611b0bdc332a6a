"""A whole decode step in one compiled call a layer, from MLX's own operations, on any device."""

from functools import partial
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching, portable
from gemma3n_perf.fusions.kernels.plan import Arrays, ModelArrays, Plan, per_plan, readable
from gemma3n_perf.fusions.types import Declared, Fusion


class CompiledStep:
    """Decodes one token of batch 1 with ``language_model``'s own weights."""

    def __init__(self, language_model: Any) -> None:
        text, eps = language_model.model, float(language_model.config.rms_norm_eps)
        self._indices = text.layer_idx_to_cache_idx
        self._arrays = ModelArrays(language_model, portable.prepare)
        one, last, layers = self._arrays.plans[0], self._arrays.plans[-1], len(text.layers)

        def first(w: Arrays, c: mx.array, position: mx.array) -> list[mx.array]:
            return portable.before_cache(one, eps, w, c, None, None, position)

        def link(
            plan: Plan, following: Plan, w: Arrays, w2: Arrays, state: list[Any], attn: Any, pli: Any, position: Any
        ) -> list[mx.array]:
            c, pe = portable.after_cache(plan, eps, w, state, attn, pli)
            return portable.before_cache(following, eps, w2, c, pe, w["pe_norm"], position)

        limit = text.vocab_size_per_layer_input
        self._begin = mx.compile(partial(portable.begin, one, eps, layers=layers, limit=limit))
        self._first = mx.compile(first)
        self._link = per_plan(link, mx.compile)
        self._last = mx.compile(partial(portable.after_cache, last, eps))
        self._finish = mx.compile(partial(portable.finish, one, eps))

    def __call__(self, token: mx.array, cache: list[Any]) -> mx.array:
        """Logits, shape (1, 1, vocabulary), after ``token``, shape (1, 1); the caches grow by one position."""
        around, weights = self._arrays()
        plans = self._arrays.plans
        c, pli = self._begin(around, token)
        positions: dict[int, mx.array] = {}
        state: list[mx.array] = []
        attn: mx.array | None = None
        for i, plan in enumerate(plans):
            layer_cache = cache[self._indices[i]]
            here = positions.setdefault(layer_cache.offset, mx.array(layer_cache.offset))
            if i == 0:
                state = self._first(weights[0], c, here)
            else:
                link = self._link(plans[i - 1], plan)
                state = link(weights[i - 1], weights[i], state[:3], attn, pli[i - 1], here)
            if plan.shared:
                keys, values = layer_cache.state
            else:
                keys, values = layer_cache.update_and_fetch(state[4], state[5])
            attn = portable.attend(plan, state[3], keys, values)
        c, pe = self._last(weights[-1], state[:3], attn, pli[len(weights) - 1])
        logits: mx.array = self._finish(around, c, pe, weights[-1]["pe_norm"])
        return logits


def apply(model: Any) -> None:
    """Replace decode at one position of batch 1; changes nothing where the weights are of another kind."""
    if readable(model.language_model):
        patching.decode_with(model.language_model, CompiledStep(model.language_model))


FUSION = Fusion(
    name="compiled-step",
    summary="a decode step in one compiled call a layer; norms, AltUp, RoPE and gates fused by mx.compile",
    replaces=("LanguageModel.__call__", "Gemma3nDecoderLayer.__call__", "Gemma3nAttention.__call__", "MLP.__call__",
              "Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    graph=Declared(fewer=("nodes", "operations.Transpose", "calls.rope", "calls.scaled_dot_product_attention")),
    file=__file__,
    where="everywhere; 4-bit weights in groups of 64, or dense ones",
    apply=apply,
)  # fmt: skip
