"""A whole decode step of mlx-vlm's language model from the kernels, one compiled call a layer.

Only the KV cache is updated outside: its capacity and position change as it fills, and it belongs to mlx-vlm.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels import decode, ends
from gemma3n_perf.fusions.kernels.common import Kernels
from gemma3n_perf.fusions.kernels.plan import Arrays, Functions, Plan, gather, plan

# What a layer needs before its KV cache, and what on both sides: fewer arrays to hand to each compiled call.
BOTH = ("router", "router_norm", "eps", "inv_freq")
EARLY = (*BOTH, "predict", "input_norm", "q", "k", "v", "left", "k_norm")

Compile = Callable[[Callable[..., Any]], Callable[..., Any]]


class Step(Functions):
    """Decodes one token of batch 1 with ``language_model``'s own weights. ``compiled``: ``mx.compile`` or identity."""

    def __init__(self, language_model: Any, kernels: Kernels, compiled: Compile = mx.compile) -> None:
        super().__init__(compiled)
        self._model = language_model
        self._kernels = kernels
        self._plans: list[Plan] = [plan(layer) for layer in language_model.model.layers]
        self._seen: list[Any] = []
        self._early: list[Arrays] = []
        self._late: list[Arrays] = []
        self._ends: Arrays = {}

    def __call__(self, token: mx.array, cache: list[Any]) -> mx.array:
        """Logits, shape (1, 1, vocabulary), after ``token``, shape (1, 1); the caches grow by one position."""
        self._gather()
        text = self._model.model
        pli, c = self._function("begin")(self._ends, token)
        plans, early, late = self._plans, self._early, self._late
        last = len(plans) - 1
        positions: dict[tuple[int, int, int], mx.array] = {}

        def at(position: int, filled: int, capacity: int) -> mx.array:
            if (position, filled, capacity) not in positions:
                positions[position, filled, capacity] = mx.array([position, filled, capacity], mx.int32)
            return positions[position, filled, capacity]

        pe = pe_norm = None
        first = at(cache[0].offset, 0, 0)
        state = self._function("first", plans[0])(early[0], c, late[0]["pe_norm"], first)
        for i, each in enumerate(plans):
            layer_cache = cache[text.layer_idx_to_cache_idx[i]]
            position = layer_cache.offset
            if not each.shared:
                layer_cache.update_and_fetch(state[3], state[4])
            keys, values = layer_cache.keys, layer_cache.values
            here = at(position, min(layer_cache.offset, keys.shape[2]), keys.shape[2])
            if i == last:
                c, pe = self._function("last", each)(late[i], state, keys, values, here, pli[i])
                pe_norm = late[i]["pe_norm"]
            else:
                link = self._function("link", each, plans[i + 1])
                state = link(late[i], early[i + 1], state, keys, values, here, pli[i])
        logits: mx.array = self._function("finish")(self._ends, c, pe, pe_norm)
        return logits

    def _gather(self) -> None:
        # A model whose weights were replaced since is read again; identity of two arrays of each layer tells.
        now = [(layer.mlp.down_proj.weight, layer.altup.modality_router.weight) for layer in self._model.model.layers]
        if len(now) != len(self._seen) or any(
            a is not b or c is not d for (a, c), (b, d) in zip(now, self._seen, strict=True)
        ):
            gathered = [gather(layer) for layer in self._model.model.layers]
            self._early = [{name: w[name] for name in EARLY if name in w} for w in gathered]
            late = [name for name in gathered[0] | gathered[-1] if name not in EARLY or name in BOTH]
            self._late = [{name: w[name] for name in late if name in w} for w in gathered]
            self._ends = ends.gather(self._model)
            self._seen = now

    def _first(self, plan: Plan) -> Callable[..., Any]:
        return lambda w, c, pe_norm, at: decode.before_cache(self._kernels, plan, w, c, None, pe_norm, at)

    def _link(self, plan: Plan, following: Plan) -> Callable[..., Any]:
        def link(w: Arrays, w2: Arrays, state: Any, keys: Any, values: Any, at: Any, pli: Any) -> list[mx.array]:
            c, pe = decode.after_cache(self._kernels, plan, w, state, keys, values, at, pli)
            return decode.before_cache(self._kernels, following, w2, c, pe, w["pe_norm"], at)

        return link

    def _last(self, plan: Plan) -> Callable[..., Any]:
        return partial(decode.after_cache, self._kernels, plan)

    def _begin(self) -> Callable[..., Any]:
        limit, layers = self._model.model.vocab_size_per_layer_input, len(self._plans)
        return partial(ends.begin, self._kernels, self._plans[0], layers=layers, limit=limit)

    def _finish(self) -> Callable[..., Any]:
        return partial(ends.finish, self._kernels, self._plans[0], vocab=self._model.model.vocab_size)
