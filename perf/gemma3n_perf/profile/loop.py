"""mlx-vlm's model loop as an engine among others: the pipelined greedy loop that this suite times."""

from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any


class MlxVlmLoop:
    """The shortest pipelined greedy decode over mlx-vlm's model, by ``MlxVlmEngine``."""

    name = "mlx-vlm model loop"
    note: str | None = None

    def __init__(self, model: Any) -> None:
        self._model = model
        self.version: str | None = metadata.version("mlx-vlm")

    def load(self) -> None:
        """Nothing to do: the model is loaded."""

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens, the next one always under way."""
        import mlx.core as mx
        import numpy as np

        from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
        from gemma3n_perf.decode.prompt import Prompt

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
