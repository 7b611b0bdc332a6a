"""A whole decode step from hand-written CUDA kernels: the host pays for each kernel, so there are a tenth as many.

Each layer is one compiled call. Only the KV cache is updated outside: its capacity and position change as it fills,
and it belongs to mlx-vlm.
"""

from functools import partial
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.kernels.plan import Arrays, Compile, ModelArrays, Plan, per_plan, readable

# What a layer needs before its KV cache, and what on both sides: fewer arrays to hand to each compiled call.
BOTH = ("router", "router_norm", "eps", "inv_freq")
EARLY = (*BOTH, "predict", "input_norm", "q", "k", "v", "left", "k_norm")


def _halves(plan: Plan, w: Arrays) -> Arrays:
    late = {name: arrays for name, arrays in w.items() if name in BOTH or name not in EARLY}
    return {"early": {name: w[name] for name in EARLY if name in w}, "late": late}


class Step:
    """Decodes one token of batch 1 with ``language_model``'s own weights."""

    def __init__(self, language_model: Any, kernels: Kernels, compiled: Compile) -> None:
        text = language_model.model
        self._indices = text.layer_idx_to_cache_idx
        self._arrays = ModelArrays(language_model, _halves)
        one, layers, limit = self._arrays.plans[0], len(text.layers), text.vocab_size_per_layer_input

        def first(plan: Plan, w: Arrays, c: Any, pe_norm: Any, at: Any) -> list[mx.array]:
            return decode.before_cache(kernels, plan, w, c, None, pe_norm, at)

        def link(
            plan: Plan, following: Plan, w: Arrays, w2: Arrays, state: Any, keys: Any, values: Any, at: Any, pli: Any
        ) -> list[mx.array]:
            c, pe = decode.after_cache(kernels, plan, w, state, keys, values, at, pli)
            return decode.before_cache(kernels, following, w2, c, pe, w["pe_norm"], at)

        self._begin = compiled(partial(decode.begin, kernels, one, layers=layers, limit=limit))
        self._first = compiled(partial(first, one))
        self._link = per_plan(link, compiled)
        self._last = compiled(partial(decode.after_cache, kernels, self._arrays.plans[-1]))
        self._finish = compiled(partial(decode.finish, kernels, one, vocab=text.vocab_size))

    def __call__(self, token: mx.array, cache: list[Any]) -> mx.array:
        """Logits, shape (1, 1, vocabulary), after ``token``, shape (1, 1); the caches grow by one position."""
        around, weights = self._arrays()
        pli, c = self._begin(around, token)
        plans, last = self._arrays.plans, len(weights) - 1
        positions: dict[tuple[int, int, int], mx.array] = {}

        def at(position: int, filled: int, capacity: int) -> mx.array:
            if (position, filled, capacity) not in positions:
                positions[position, filled, capacity] = mx.array([position, filled, capacity], mx.int32)
            return positions[position, filled, capacity]

        state = self._first(weights[0]["early"], c, weights[0]["late"]["pe_norm"], at(cache[0].offset, 0, 0))
        for i, plan in enumerate(plans):
            layer_cache, late = cache[self._indices[i]], weights[i]["late"]
            position = layer_cache.offset
            if not plan.shared:
                layer_cache.update_and_fetch(state[3], state[4])
            keys, values = layer_cache.keys, layer_cache.values
            here = at(position, min(layer_cache.offset, keys.shape[2]), keys.shape[2])
            if i == last:
                c, pe = self._last(late, state, keys, values, here, pli[i])
            else:
                link = self._link(plan, plans[i + 1])
                state = link(late, weights[i + 1]["early"], state, keys, values, here, pli[i])
        logits: mx.array = self._finish(around, c, pe, weights[last]["late"]["pe_norm"])
        return logits


def apply_with(model: Any, make: Make, compiled: Compile) -> None:
    """Replace decode at one position of batch 1, where the kernels can read the weights; the rest stays mlx-vlm's."""
    if readable(model.language_model):
        patching.decode_with(model.language_model, Step(model.language_model, Kernels(make), compiled))


FUSION = backend.of_kernels(
    "cuda-step",
    "a decode step in 13 CUDA kernels a layer, each layer one compiled call",
    ("LanguageModel.__call__", "Gemma3nDecoderLayer.__call__", "Gemma3nAttention.__call__", "MLP.__call__",
     "Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    apply_with,
    file=__file__,
    fewer=("nodes", "operations.RMSNorm", "calls.rope"),
)  # fmt: skip
