"""mlx-vlm's own ``stream_generate``, by wall clock: what its users get, bookkeeping and all but the text.

Source: mlx_vlm/generate/dispatch.py. Its ``generation_tps`` counts n+1 tokens over n intervals, so it is not read. A
forged checkpoint has no tokenizer; a stand-in takes the tokens and never asks to stop.
"""

from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

import mlx.core as mx

from gemma3n_perf.decode.engines.generator import GeneratorEngine, Given


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


class MlxVlmStream(GeneratorEngine):
    """``stream_generate`` over a model that is loaded already."""

    name = "mlx-vlm stream_generate"
    note = "a stand-in takes the tokens: no text is made of them"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.version = metadata.version("mlx-vlm")

    @property
    def stream_of_generation(self) -> Any:
        """mlx-vlm's own."""
        from mlx_vlm.generate import generation_stream

        return generation_stream

    def generate(self, ids: Sequence[int], cache: list[Any], count: int, **options: int) -> Iterator[Given]:
        """As ``stream_generate`` gives them."""
        from mlx_vlm import stream_generate

        results: Any = stream_generate(
            self._model, _Silent(), "", input_ids=mx.array([list(ids)]), max_tokens=count, temperature=0.0,
            prompt_cache=cache, **options,
        )  # fmt: skip
        for result in results:
            yield int(result.token), result.logprobs
