"""mlx-vlm's own ``stream_generate``, by wall clock: what its users get, bookkeeping and all but the text.

Source: mlx_vlm/generate/dispatch.py. Its ``generation_tps`` counts n+1 tokens over n intervals, so it is not read. A
forged checkpoint has no tokenizer; a stand-in takes the tokens and never asks to stop.
"""

from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import mlx.core as mx


class _Silent:
    """Tokenizer, processor and detokenizer in one: no text, no end."""

    last_segment = ""
    thinking_budget_criteria: Any = None
    all_special_ids: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.tokenizer = self.detokenizer = self

    def stopping_criteria(self, *_: Any, **__: Any) -> bool:
        """Take what comes, make no text of it, and never ask to stop."""
        return False

    add_token = reset = finalize = stopping_criteria


class MlxVlmStream:
    """``stream_generate`` over a model that is loaded already."""

    name = "mlx-vlm stream_generate"
    note = "a stand-in takes the tokens: no text is made of them"

    def __init__(self, model: Any) -> None:
        self._model = model
        self.version = metadata.version("mlx-vlm")

    def load(self) -> None:
        """Nothing to do: the model is shared with the model loop."""

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens as ``stream_generate`` gives them."""
        from mlx_vlm.generate.dispatch import stream_generate

        results: Any = stream_generate(
            self._model, _Silent(), "", input_ids=mx.array([list(ids)]), max_tokens=count, temperature=0.0
        )
        # It yields the last token twice: once as it comes, once with the reason for ending.
        for _, result in zip(range(count), results, strict=False):
            yield int(result.token)
