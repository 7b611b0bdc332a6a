"""A whole decode step in one hand-written CUDA kernel a layer: the host pays for each graph node, so there are few.

A kernel takes a layer from behind its KV cache to before the next layer's. Only the cache is updated outside: its
capacity and position change as it fills, and it belongs to mlx-vlm.
"""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Text:
    """What a kernel has to know of the model beside its layers: how many, and what its vocabularies end with."""

    layers: int
    vocabulary: int
    per_layer_vocabulary: int


def first(k: Phases, text: Text, plan: Plan, around: Arrays, w: Arrays, token: Any, at: Any, before: Any) -> list[Any]:
    """From a token to the first layer's KV cache, behind ``before``."""
    k.after(before)
    given, c = decode.begin(k, plan, around, token, layers=text.layers, limit=text.per_layer_vocabulary)
    return [given, *decode.before_cache(k, plan, w, c, None, w["input_norm"], at)]


def link(k: Phases, text: Text, plan: Plan, following: Plan, w: Arrays, w2: Arrays, *state: Any) -> list[Any]:
    """From behind a layer's KV cache to the following one's."""
    c, pe = decode.after_cache(k, plan, w, *state)
    return decode.before_cache(k, following, w2, c, pe, w["pe_norm"], state[3])


def last(k: Phases, text: Text, plan: Plan, around: Arrays, w: Arrays, *state: Any) -> list[Any]:
    """From behind the last layer's KV cache to logits, and what they are made of."""
    c, pe = decode.after_cache(k, plan, w, *state)
    return decode.finish(k, plan, around, c, pe, w["pe_norm"], vocab=text.vocabulary)


class Launches:
    """A step's kernels in order, each with the tables of the weights that it reads; again where these were replaced."""

    def __init__(self, language_model: Any, kernels: Kernels, grid: Grid, compiled: Compile) -> None:
        model = language_model.model
        text = Text(len(model.layers), model.vocab_size, model.vocab_size_per_layer_input)
        self._table = partial(Table, kernels)
        self._arrays = ModelArrays(language_model, lambda plan, arrays: self._table(arrays))
        self._ends: Arrays = {}
        self._around: Table | None = None  # kept, because it keeps the arrays that its addresses are of
        self._tables: list[Table] = []
        self._made: list[Callable[..., Any]] = []
        self.plans = self._arrays.plans

        @cache
        def kernel(function: Callable[..., Any], plans: tuple[Plan, ...], layouts: tuple[Layout, ...]) -> Any:
            def body(k: Phases, tables: list[Any], *state: Any) -> Any:
                arrays = (layout.of(table) for layout, table in zip(layouts, tables, strict=True))
                return function(k, text, *plans, *arrays, *state)

            return compiled(phases.composed(kernels, grid, function.__name__, body))

        self._kernel = kernel

    def __call__(self) -> list[Callable[..., Any]]:
        """Functions of a counter and what a kernel takes besides weights: the first, those between layers, the last."""
        ends, tables = self._arrays()
        if ends is not self._ends or any(a is not b for a, b in zip(tables, self._tables, strict=True)):
            around, plans = self._table(ends), self.plans
            self._around, self._ends, self._tables = around, ends, tables
            links = zip(pairwise(plans), pairwise(tables), strict=True)
            self._made = [
                self._launch(first, (plans[0],), around, tables[0]),
                *(self._launch(link, pair, *between) for pair, between in links),
                self._launch(last, (plans[-1],), around, tables[-1]),
            ]
        return self._made

    def _launch(self, function: Callable[..., Any], plans: tuple[Plan, ...], *tables: Table) -> Callable[..., Any]:
        made, arrays = self._kernel(function, plans, tuple(table.layout for table in tables)), [t.array for t in tables]
        return lambda counter, *state: made(counter, arrays, *state)


class Step:
    """Decodes one token of batch 1 with ``language_model``'s own weights.

    Launches that share a counter of barriers must not run side by side, and tokens may be known before they are
    decoded: so each sequence has a counter, and its step waits for the one before.
    """

    def __init__(self, language_model: Any, kernels: Kernels, grid: Grid, compiled: Compile, start: int = 0) -> None:
        self._launches = Launches(language_model, kernels, grid, compiled)
        self._indices = language_model.model.layer_idx_to_cache_idx
        self._numbers = [resident(i, mx.int32) for i in range(len(self._launches.plans))]
        self._start = start
        self._sequences: WeakKeyDictionary[Any, tuple[mx.array, mx.array]] = WeakKeyDictionary()

    def _begun(self) -> tuple[mx.array, mx.array]:
        """A sequence's counter, and what its first step waits for."""
        one = self._launches.plans[0]
        return phases.new_counter(self._start), mx.zeros((1, 1, one.hidden), one.dtype)

    def __call__(self, token: mx.array, cache: list[Any]) -> mx.array:
        """Logits, shape (1, 1, vocabulary), after ``token``, shape (1, 1); the caches grow by one position."""
        begin, *others = self._launches()
        counter, before = self._sequences.get(cache[0]) or self._begun()
        positions: dict[tuple[int, int, int], mx.array] = {}

        def at(position: int, filled: int, capacity: int) -> mx.array:
            if (position, filled, capacity) not in positions:
                positions[position, filled, capacity] = places(position, filled, capacity)
            return positions[position, filled, capacity]

        given, *state = begin(counter, token, at(cache[0].offset, 0, 0), before)
        for i, (plan, launch) in enumerate(zip(self._launches.plans, others, strict=True)):
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
