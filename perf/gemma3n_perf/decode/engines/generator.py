"""Engines that decode by a generator of their own, which gives a token at a time and is always a step ahead of it.

A run goes on where the generator stands. To rewind is to start a new one from a copy of the KV cache, with one token
for its prompt; its first tokens are no part of any run. Of a step, all that the generator does counts: sampling, log
probabilities, bookkeeping. Text is made of nothing, and no token ends it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine, rows_are_right
from gemma3n_perf.decode.prompt import Prompt

LEAD = 3
"""Tokens of a new generator before a run: it embeds the first one as a prompt, and frees MLX's cache after it."""

ENDLESS = 1 << 40
"""More tokens than any run takes, so that the generator ends nothing by itself."""


Given = tuple[int, mx.array]
"""A token, and log probabilities of the shape (vocabulary,)."""


class GeneratorEngine(MlxVlmEngine, ABC):
    """One sequence of text, greedy. A token that was decoded is a numpy integer, one that is given a plain one.

    Given tokens follow a prompt or other given ones, and start a generator over all of them.
    """

    version: str | None = None
    note: str | None = None

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self._given: list[int] = []
        self._results: Iterator[Given] = iter(())

    @property
    @abstractmethod
    def stream_of_generation(self) -> Any:
        """MLX's stream that the generator computes on."""

    @abstractmethod
    def generate(self, ids: Sequence[int], cache: list[Any], count: int, **options: int) -> Iterator[Given]:
        """Feed ``ids`` to ``cache`` and yield ``count`` tokens. ``options`` are for the generator's own function."""

    def load(self) -> None:
        """Nothing to do where the model is loaded already."""

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens, each as soon as it is there."""
        # mlx-vlm's yields the last token twice: once as it comes, once with the reason for ending.
        results = self.generate(ids, self.make_cache(), count)
        yield from (token for _, (token, _) in zip(range(count), results, strict=False))

    def settle(self) -> None:
        """Wait for the step that the generator has started by itself."""
        mx.synchronize(self.stream_of_generation)

    def prefill(self, prompt: Prompt) -> Any:
        """Run the prompt into an empty KV cache and return the first token."""
        self._given = prompt.ids.tolist()
        return self._over_given()

    def begin(self, token_id: int) -> Any:
        """Start an empty KV cache; returns ``token_id`` as a token to feed."""
        self._given = []
        return token_id

    def token(self, token_id: int) -> Any:
        """``token_id`` as a token to feed."""
        return token_id

    def step(self, token: Any) -> Any:
        """The next token, computed; the one after it is under way."""
        if isinstance(token, int):
            self._given.append(token)
            return self._over_given()
        return self._pulled()

    def check_finite(self, token: Any) -> None:
        """Decode one step and look at every log probability, which is finite where all logits are."""
        self._pulled()
        assert self._last is not None
        self._require_finite(self._last)

    def last_logits(self) -> tuple[np.ndarray, str]:
        """Log probabilities of the latest token, float32 of shape (vocabulary,), and the type they were computed in."""
        assert self._last is not None
        self._last = self._last.reshape(1, -1)
        return super().last_logits()

    def snapshot(self) -> Any:
        """Copy the KV cache, evaluated, and the token that comes after what is in it."""
        state = super().snapshot()
        return state, int(self._pulled())

    def rewind(self, snapshot: Any) -> None:
        """Put the KV cache back and start a generator there; nothing is under way when a run begins."""
        state, token = snapshot
        self._end()
        super().rewind(state)
        self._start([token])
        for _ in range(LEAD):
            self._pulled()
        self.settle()

    def _over_given(self) -> Any:
        self._end()
        self.cache = self.make_cache()
        self._start(self._given)
        return self._pulled()

    def _start(self, ids: Sequence[int]) -> None:
        one_by_one = {} if rows_are_right() else {"prefill_step_size": 1}
        self._results = self.generate(ids, self.cache, ENDLESS, **one_by_one)

    def _end(self) -> None:
        # What it set for its own time, such as a limit of wired memory, must not outlast the next one's beginning.
        close = getattr(self._results, "close", None)
        if close:
            close()

    def _pulled(self) -> np.int64:
        token, self._last = next(self._results)
        return np.int64(token)
