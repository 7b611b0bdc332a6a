"""mlx-vlm's own model, stepped directly: the same calls as its generator, without its bookkeeping.

Source: mlx_vlm/generate/ar.py, generate_step. The prompt but its last token is prefilled first, so the
head is computed for one position; each step then feeds the previous token back, still unevaluated.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from gemma3n_perf.decode.prompt import Prompt, embed
from gemma3n_perf.errors import InvalidError, NonFiniteError
from gemma3n_perf.workload.workload import Shape

PREFILL_CHUNK = 2_048
"""Prompt tokens of one forward at most, as mlx-vlm's ``prefill_step_size`` has it."""

_ARGMAX, _ARRAY, _EVAL = mx.argmax, mx.array, mx.eval
"""Bound before any fusion is imported: one that replaces them for a moment, while a step is built, gains nothing."""

WRONG_ROWS = "MLX's 4-bit product of two rows with K = 64 is wrong here"


class MlxVlmEngine:
    """One model, one sequence, greedy. ``step`` is lazy; nothing is computed until a token is read."""

    name = "mlx_vlm"

    def __init__(self, model: Any, make_shaped: Callable[[Any, Shape, Prompt], Any] | None = None) -> None:
        self._model = model
        self._make_shaped = make_shaped
        self._language_model = getattr(model, "language_model", model)
        self._last: mx.array | None = None
        self._embedded: tuple[Prompt, Any] | None = None
        self._again = False
        self.cache: list[Any] = []

    def prefill(self, prompt: Prompt) -> mx.array:
        """Run the prompt into a fresh KV cache and return the first token, shape (1,), unevaluated.

        Where MLX's products of several rows are wrong, the prompt goes in one token at a time.
        """
        return mx.argmax(self.prompt_logits(prompt), axis=-1)

    def refill(self, prompt: Prompt) -> Any:
        """As ``prefill``, for what is not timed: an image that the last one embedded is not embedded again.

        A vision tower takes a minute and more on a CPU.
        """
        self._again = True
        try:
            return self.prefill(prompt)
        finally:
            self._again = False

    def _features(self, prompt: Prompt) -> Any:
        if self._again and self._embedded is not None and self._embedded[0] is prompt:
            return self._embedded[1]
        found = embed(self._model, prompt)
        self._embedded = (prompt, found) if prompt.pixels is not None else None
        return found

    def prompt_logits(self, prompt: Prompt) -> mx.array:
        """Run the prompt into a fresh KV cache; logits after it, shape (1, vocabulary), unevaluated."""
        self.cache = self.make_cache()
        ids, embeddings, per_layer = self._features(prompt)
        count = embeddings.shape[1] - 1
        width = PREFILL_CHUNK if rows_are_right() else 1
        for begin in range(0, count, width):
            part = slice(begin, min(begin + width, count))
            self._language_model(
                ids[:, part], inputs_embeds=embeddings[:, part], per_layer_inputs=per_layer, cache=self.cache
            )
            mx.eval([vars(cache) for cache in self.cache])
        out = self._language_model(
            ids[:, -1:], inputs_embeds=embeddings[:, -1:], per_layer_inputs=per_layer, cache=self.cache
        )
        logits: mx.array = out.logits[:, -1]
        return logits

    def prefill_fault(self) -> str:
        """Why a prefill must not be timed here: it goes in one token at a time."""
        return "" if rows_are_right() else f"{WRONG_ROWS}, so the prompt goes in one token at a time"

    def shaped(self, shape: Shape, prompt: Prompt) -> Any:
        """The same model for a shape of several rows, a quantized KV cache or prefills alone."""
        assert self._make_shaped is not None
        return self._make_shaped(self._model, shape, prompt)

    def make_cache(self) -> list[Any]:
        """An empty KV cache, an object for each layer that has one."""
        return list(self._language_model.make_cache())

    def begin(self, token_id: int) -> mx.array:
        """Start an empty KV cache; returns ``token_id`` as a token to feed, shape (1,)."""
        self.cache = self.make_cache()
        return self.token(token_id)

    def token(self, token_id: int) -> mx.array:
        """``token_id`` as a token to feed, shape (1,)."""
        return mx.array([token_id])

    def logits(self, token: mx.array) -> mx.array:
        """One decode step: feed ``token``, shape (1,), and return logits of shape (1, vocabulary), unevaluated."""
        logits: mx.array = self._language_model(token[None], cache=self.cache).logits
        return logits[:, -1]

    def step(self, token: mx.array) -> mx.array:
        """One greedy decode step: the next token, shape (1,), unevaluated."""
        self._last = self.logits(token)
        return _ARGMAX(self._last, axis=-1)

    def finish(self) -> None:
        """Have the logits of the latest step computed now, not when somebody asks for them."""
        _EVAL(self._last)

    def last_logits(self) -> tuple[np.ndarray, str]:
        """Logits of the latest step, float32, of all its rows behind each other, and the type they were computed in."""
        logits = self._last
        if type(logits) is not _ARRAY:  # what only looks like one could give other numbers to whoever asks later
            raise InvalidError(
                f"a step's logits are a {type(logits).__name__}", expected="an array of MLX's",
                remedy="have the model return mx.array",
            )  # fmt: skip
        return np.array(logits.astype(mx.float32)).ravel(), str(logits.dtype).rpartition(".")[2]

    def snapshot(self) -> list[dict[str, Any]]:
        """Copy the KV cache, evaluated, so that any number of runs can start from here."""
        state = [self._copied(vars(cache)) for cache in self.cache]
        mx.eval(state)
        return state

    def rewind(self, snapshot: list[dict[str, Any]]) -> None:
        """Put the KV cache back. Copies, since MLX updates a cache in place where it is the only holder."""
        copies = [self._copied(state) for state in snapshot]
        mx.eval(copies)
        for cache, state in zip(self.cache, copies, strict=True):
            vars(cache).update(state)

    @staticmethod
    def _copied(state: dict[str, Any]) -> dict[str, Any]:
        # Arrays may stand in tuples, as those of a quantized cache do.
        copied: dict[str, Any] = tree_map(lambda value: value * 1 if isinstance(value, mx.array) else value, state)
        return copied

    def kv_bytes(self) -> int:
        """Bytes held by the KV cache now."""
        found: Any = tree_flatten([vars(cache) for cache in self.cache])
        return sum(value.nbytes for _, value in found if isinstance(value, mx.array))

    def check_finite(self, token: mx.array) -> None:
        """Decode one step and look at every logit. Raises NonFiniteError: a fast NaN is not a result."""
        self._require_finite(self.logits(token))

    @staticmethod
    def _require_finite(logits: mx.array) -> None:
        bad = int(mx.sum(~mx.isfinite(logits)).item().real)
        if bad:
            raise NonFiniteError(
                f"{bad} of {logits.size} logits are NaN or infinite",
                expected="finite logits at every step",
                remedy="check the weights, the dtype and any fusion that is on",
            )


@functools.cache
def rows_are_right() -> bool:
    """Whether MLX's 4-bit product of two rows with K = 64 is right here: that of MLX 0.32.4 on CUDA is garbage or NaN.

    LAUREL's second product has that shape, so a prefill of several tokens is wrong where this is.
    """
    weight, x = mx.random.normal((256, 64), key=mx.random.key(1)), mx.random.normal((2, 64), key=mx.random.key(2))
    packed = mx.quantize(weight, group_size=64, bits=4)
    found = mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=4)
    right = x @ mx.dequantize(*packed, group_size=64, bits=4).T
    return bool(mx.allclose(found, right, rtol=1e-2, atol=1e-2).item())


class MlxVlmLoop:
    """The shortest pipelined greedy decode over mlx-vlm's model: the loop that this suite times, as one engine more."""

    name = "mlx-vlm model loop"
    note: str | None = None

    def __init__(self, model: Any) -> None:
        self._model = model
        self.version: str | None = metadata.version("mlx-vlm")

    def load(self) -> None:
        """Nothing to do: the model is loaded."""

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens, the next one always under way."""
        engine = MlxVlmEngine(self._model)
        ahead = engine.prefill(Prompt(np.asarray(ids, dtype=np.int32)))
        mx.async_eval(ahead)
        for index in range(count):
            token = ahead
            if index + 1 < count:
                ahead = engine.step(token)
                mx.async_eval(ahead)
            read: Any = token.item()
            yield int(read)
