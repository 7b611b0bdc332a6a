"""A whole decode step in one compiled call a layer, from MLX's own operations, on any device."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching, portable
from gemma3n_perf.fusions.kernels import ends, plan
from gemma3n_perf.fusions.kernels.plan import Arrays, Plan
from gemma3n_perf.fusions.types import Declared, Fusion

Function = Callable[..., Any]


class CompiledStep(plan.Functions):
    """Decodes one token of batch 1 with ``language_model``'s own weights."""

    def __init__(self, language_model: Any) -> None:
        super().__init__(mx.compile)
        self._model = language_model
        self._layers = language_model.model.layers
        self._eps = float(language_model.config.rms_norm_eps)
        self._plans: list[Plan] = [plan.plan(layer) for layer in self._layers]
        self._gathered = [plan.LayerArrays(layer, portable.prepare) for layer in self._layers]
        self._ends: Arrays = {}

    def __call__(self, token: mx.array, cache: list[Any]) -> mx.array:
        """Logits, shape (1, 1, vocabulary), after ``token``, shape (1, 1); the caches grow by one position."""
        text = self._model.model
        weights = [arrays() for arrays in self._gathered]
        if self._ends.get("norm") is not text.norm.weight:
            self._ends = ends.gather(self._model)
        c, pli = self._function("begin")(self._ends, token)
        positions: dict[int, mx.array] = {}
        state: list[mx.array] = []
        attn: mx.array | None = None
        for i, each in enumerate(self._plans):
            layer_cache = cache[text.layer_idx_to_cache_idx[i]]
            here = positions.setdefault(layer_cache.offset, mx.array(layer_cache.offset))
            if i == 0:
                state = self._function("first", each)(weights[0], c, here)
            else:
                before = self._plans[i - 1]
                link = self._function("link", before, each)
                state = link(weights[i - 1], weights[i], state[:3], attn, pli[i - 1], here)
            if each.shared:
                keys, values = layer_cache.state
            else:
                keys, values = layer_cache.update_and_fetch(state[4], state[5])
            attn = portable.attend(each, state[3], keys, values)
        last, w = self._plans[-1], weights[-1]
        c, pe = self._function("last", last)(w, state[:3], attn, pli[len(weights) - 1])
        logits: mx.array = self._function("finish")(self._ends, c, pe, w["pe_norm"])
        return logits

    def _begin(self) -> Function:
        limit, layers = self._model.model.vocab_size_per_layer_input, len(self._plans)
        return lambda w, token: portable.begin(self._plans[0], self._eps, w, token, layers=layers, limit=limit)

    def _first(self, each: Plan) -> Function:
        return lambda w, c, position: portable.before_cache(each, self._eps, w, c, None, None, position)

    def _link(self, before: Plan, each: Plan) -> Function:
        def link(w: Arrays, w2: Arrays, state: list[Any], attn: Any, pli: Any, position: Any) -> list[mx.array]:
            c, pe = portable.after_cache(before, self._eps, w, state, attn, pli)
            return portable.before_cache(each, self._eps, w2, c, pe, w["pe_norm"], position)

        return link

    def _last(self, each: Plan) -> Function:
        return lambda w, state, attn, pli: portable.after_cache(each, self._eps, w, state, attn, pli)

    def _finish(self) -> Function:
        return lambda w, c, pe, pe_norm: portable.finish(self._plans[0], self._eps, w, c, pe, pe_norm)


def apply(model: Any) -> None:
    """Replace decode at one position of batch 1; changes nothing where the weights are of another kind."""
    if ends.readable(model.language_model):
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
