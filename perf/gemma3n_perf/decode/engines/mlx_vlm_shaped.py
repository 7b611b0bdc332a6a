"""mlx-vlm's model where a step is more than one token of one sequence: batches, verification, a quantized KV cache, and
prefills alone. Source: mlx_vlm/generate, and mlx_lm/models/cache.py for the quantized cache.
"""

import zlib
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np

from gemma3n_perf.decode.engines.mlx_vlm import WRONG_ROWS, MlxVlmEngine, rows_are_right
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.workload.workload import Shape


class MlxVlmShaped(MlxVlmEngine):
    """Several rows in one step: a batch of sequences, tokens that speculative decoding would verify; a quantized cache.

    Tokens have the shape (batch, verify). The sequences are the prompt, turned on by one token each. Of the tokens that
    a step feeds, all count as accepted, so the KV cache grows by ``verify`` positions. Raises InvalidError on a stack
    whose products of several rows are wrong.
    """

    def __init__(self, model: Any, shape: Shape, prompt: Prompt) -> None:
        if not rows_are_right() and (shape.rows > 1 or shape.prefill_alone):
            raise InvalidError(
                f"{WRONG_ROWS}, so {shape} is computed wrongly",
                expected="a stack that computes batches, verification and prefills rightly",
                remedy="measure a plain shape such as pp320-tg64, or another release of MLX",
            )
        super().__init__(model)
        self._shape, self._prompt = shape, prompt
        self._rows = np.arange(shape.rows).reshape(shape.batch, shape.verify)
        text = self._language_model.config
        self._vocabulary = min(text.vocab_size, text.vocab_size_per_layer_input)

    def make_cache(self) -> list[Any]:
        """As mlx-vlm makes it; what it never rotates is quantized from the first token on where that is requested."""
        caches = super().make_cache()
        if not self._shape.kv_bits:
            return caches
        from mlx_lm.models.cache import QuantizedKVCache

        bits = self._shape.kv_bits
        return [QuantizedKVCache(64, bits) if type(one).__name__ == "KVCache" else one for one in caches]

    def prefill(self, prompt: Prompt) -> mx.array:
        """As for one sequence; the first tokens, shape (batch, verify), are drafts beside the prompt's own."""
        first = super().prefill(self._batch_of(prompt))
        drafts: mx.array = (first[:, None] + mx.array(self._rows[0])) % self._vocabulary
        return drafts

    def _batch_of(self, prompt: Prompt) -> Prompt:
        return replace(prompt, ids=np.stack([np.roll(prompt.ids, -row) for row in range(self._shape.batch)]))

    def token(self, token_id: int) -> mx.array:
        """``token_id`` and those after it, shape (batch, verify), so that rows differ."""
        return mx.array((token_id + self._rows) % self._vocabulary)

    def logits(self, token: mx.array) -> mx.array:
        """One step: feed tokens of shape (batch, verify); logits have the shape (batch, verify, vocabulary)."""
        logits: mx.array = self._language_model(token, cache=self.cache).logits
        return logits

    def read(self, token: mx.array) -> int:
        """One number that stands for all tokens of a step: their CRC-32."""
        return zlib.crc32(np.asarray(token, dtype=np.int64).tobytes())


class MlxVlmPrefills(MlxVlmShaped):
    """Each step is a prefill of the whole prompt into an empty KV cache; its tokens are the first ones."""

    def prefill(self, prompt: Prompt) -> mx.array:
        """As for a batch; the prompt is that of the steps after it, too."""
        self._prompt = prompt
        return super().prefill(prompt)

    def logits(self, token: mx.array) -> mx.array:
        """Logits after the prompt, shape (batch, vocabulary); ``token`` is not fed."""
        return self.prompt_logits(self._batch_of(self._prompt))
