"""mlx-vlm's own model, stepped directly: the same calls as its generator, without its bookkeeping.

Source: mlx_vlm/generate/ar.py, generate_step. The prompt but its last token is prefilled first, so the
head is computed for one position; each step then feeds the previous token back, still unevaluated.
"""

from typing import Any

import mlx.core as mx

from gemma3n_perf.decode.prompt import Prompt, embed
from gemma3n_perf.errors import NonFiniteError


class MlxVlmEngine:
    """One model, one sequence, greedy. ``step`` is lazy; nothing is computed until a token is read."""

    name = "mlx_vlm"

    def __init__(self, model: Any) -> None:
        self._model = model
        self._language_model = model.language_model
        self.cache: list[Any] = []

    def prefill(self, prompt: Prompt) -> mx.array:
        """Run the prompt into a fresh KV cache and return the first token, shape (1,), unevaluated."""
        self.cache = self._model.make_cache()
        ids, embeddings, per_layer = embed(self._model, prompt)
        if embeddings.shape[1] > 1:
            self._language_model(
                ids[:, :-1], inputs_embeds=embeddings[:, :-1], per_layer_inputs=per_layer, cache=self.cache
            )
            mx.eval([value for cache in self.cache for value in vars(cache).values() if isinstance(value, mx.array)])
        out = self._language_model(
            ids[:, -1:], inputs_embeds=embeddings[:, -1:], per_layer_inputs=per_layer, cache=self.cache
        )
        return mx.argmax(out.logits[:, -1], axis=-1)

    def begin(self, token_id: int) -> mx.array:
        """Start an empty KV cache; returns ``token_id`` as a token to feed, shape (1,)."""
        self.cache = self._model.make_cache()
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
        return mx.argmax(self.logits(token), axis=-1)

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
        return {key: value * 1 if isinstance(value, mx.array) else value for key, value in state.items()}

    def kv_bytes(self) -> int:
        """Bytes held by the KV cache now."""
        return sum(a.nbytes for cache in self.cache for a in vars(cache).values() if isinstance(a, mx.array))

    def check_finite(self, token: mx.array) -> None:
        """Decode one step and look at every logit. Raises NonFiniteError: a fast NaN is not a result."""
        logits = self.logits(token)
        bad = int(mx.sum(~mx.isfinite(logits)).item().real)
        if bad:
            raise NonFiniteError(
                f"{bad} of {logits.size} logits are NaN or infinite",
                expected="finite logits at every step",
                remedy="check the weights, the dtype and any fusion that is on",
            )
