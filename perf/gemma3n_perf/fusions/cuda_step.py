"""A whole decode step in one hand-written CUDA kernel a layer: the host pays for each graph node, so there are few.

A kernel takes a layer from behind its KV cache to before the next layer's. Only the cache is updated outside: its
capacity and position change as it fills, and it belongs to mlx-vlm.
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

import mlx.core as mx

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, phases
from gemma3n_perf.fusions.kernels.addresses import Layout, Table
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.kernels.phases import Grid, Phases
from gemma3n_perf.fusions.kernels.plan import Arrays, Compile, ModelArrays, Plan, places, readable, resident


class Step:
    """Decodes one token of batch 1 with ``language_model``'s own weights.

    Launches that share a counter of barriers must not run side by side, and tokens may be known before they are
    decoded: so each sequence has a counter, and its step waits for the one before.
    """

    def __init__(self, language_model: Any, kernels: Kernels, grid: Grid, compiled: Compile, start: int = 0) -> None:
        text = language_model.model
        self._indices = text.layer_idx_to_cache_idx
        self._table = partial(Table, kernels)
        self._arrays = ModelArrays(language_model, lambda plan, arrays: self._table(arrays))
        self._plans = self._arrays.plans
        self._numbers = [resident(i, mx.int32) for i in range(len(text.layers))]
        self._start = start
        self._sequences: WeakKeyDictionary[Any, tuple[mx.array, mx.array]] = WeakKeyDictionary()
        self._ends: Arrays = {}
        self._tables: list[Table] = []
        begin = partial(decode.begin, layers=len(text.layers), limit=text.vocab_size_per_layer_input)

        def first(k: Phases, plan: Plan, around: Arrays, w: Arrays, token: Any, at: Any, before: Any) -> list[Any]:
            k.after(before)
            given, c = begin(k, plan, around, token)
            return [given, *decode.before_cache(k, plan, w, c, None, w["input_norm"], at)]

        def link(k: Phases, plan: Plan, following: Plan, w: Arrays, w2: Arrays, *state: Any) -> list[Any]:
            c, pe = decode.after_cache(k, plan, w, *state)
            return decode.before_cache(k, following, w2, c, pe, w["pe_norm"], state[3])

        def last(k: Phases, plan: Plan, around: Arrays, w: Arrays, *state: Any) -> list[Any]:
            c, pe = decode.after_cache(k, plan, w, *state)
            return decode.finish(k, plan, around, c, pe, w["pe_norm"], vocab=text.vocab_size)

        @cache
        def kernel(function: Callable[..., Any], plans: tuple[Plan, ...], layouts: tuple[Layout, ...]) -> Any:
            def body(k: Phases, tables: list[Any], *state: Any) -> Any:
                arrays = (layout.of(table) for layout, table in zip(layouts, tables, strict=True))
                return function(k, *plans, *arrays, *state)

            return compiled(phases.composed(kernels, grid, function.__name__, body))

        def launch(function: Callable[..., Any], plans: tuple[Plan, ...], *tables: Table) -> Any:
            made = kernel(function, plans, tuple(table.layout for table in tables))
            return partial(_with, made, [table.array for table in tables])

        def launches(around: Table, tables: list[Table]) -> list[Any]:
            links = zip(pairwise(self._plans), pairwise(tables), strict=True)
            return [
                launch(first, (self._plans[0],), around, tables[0]),
                *(launch(link, plans, *pair) for plans, pair in links),
                launch(last, (self._plans[-1],), around, tables[-1]),
            ]

        self._launches_of, self._launches = launches, list[Any]()

    def _prepared(self) -> list[Any]:
        """What launches each kernel, made again where weights were replaced."""
        ends, tables = self._arrays()
        if ends is not self._ends or any(a is not b for a, b in zip(tables, self._tables, strict=True)):
            self._around, self._ends, self._tables = self._table(ends), ends, tables
            self._launches = self._launches_of(self._around, tables)
        return self._launches

    def _begun(self) -> tuple[mx.array, mx.array]:
        """A sequence's counter, and what its first step waits for."""
        one = self._arrays.plans[0]
        return phases.new_counter(self._start), mx.zeros((1, 1, one.hidden), one.dtype)

    def __call__(self, token: mx.array, cache: list[Any]) -> mx.array:
        """Logits, shape (1, 1, vocabulary), after ``token``, shape (1, 1); the caches grow by one position."""
        first, *others = self._prepared()
        counter, before = self._sequences.get(cache[0]) or self._begun()
        positions: dict[tuple[int, int, int], mx.array] = {}

        def at(position: int, filled: int, capacity: int) -> mx.array:
            if (position, filled, capacity) not in positions:
                positions[position, filled, capacity] = places(position, filled, capacity)
            return positions[position, filled, capacity]

        given, *state = first(counter, token, at(cache[0].offset, 0, 0), before)
        for i, (plan, launch) in enumerate(zip(self._plans, others, strict=True)):
            layer_cache = cache[self._indices[i]]
            position = layer_cache.offset
            if not plan.shared:
                layer_cache.update_and_fetch(state[3], state[4])
            keys, values = layer_cache.keys, layer_cache.values
            here = at(position, min(layer_cache.offset, keys.shape[2]), keys.shape[2])
            state = launch(counter, state[:3], keys, values, here, given, self._numbers[i])
        logits: mx.array
        logits, normed = state
        self._sequences[cache[0]] = counter, normed
        return logits


def _with(made: Callable[..., Any], tables: list[mx.array], counter: mx.array, *state: Any) -> Any:
    return made(counter, tables, *state)


def apply_with(model: Any, make: Make, compiled: Compile, grid: Grid | None = None, start: int = 0) -> None:
    """Replace decode at one position of batch 1, where the kernels can read the weights; the rest stays mlx-vlm's."""
    if readable(model.language_model):
        step = Step(model.language_model, Kernels(make), grid or phases.grid(make), compiled, start)
        patching.decode_with(model.language_model, step)


FUSION = backend.of_kernels(
    "cuda-step",
    "a decode step in one CUDA kernel a layer, whose blocks wait for each other; the KV cache is updated between them",
    ("LanguageModel.__call__", "Gemma3nDecoderLayer.__call__", "Gemma3nAttention.__call__", "MLP.__call__",
     "Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    apply_with,
    file=__file__,
    fewer=("nodes", "operations.RMSNorm", "calls.rope"),
)  # fmt: skip
