"""mlx-lm on the same checkpoint folder: loaded by its own loader, decoded by its own ``generate_step``.

Whether it can load a checkpoint is for it to say, each time. Source: mlx_lm/utils.py and mlx_lm/generate.py.
"""

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx


class MlxLm:
    """mlx-lm's own model class and loop, greedy."""

    name = "mlx-lm"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._model: Any = None
        self.note: str | None = None
        try:
            self.version: str | None = metadata.version("mlx-lm")
        except metadata.PackageNotFoundError:
            self.version = None

    def load(self) -> None:
        """Load with mlx-lm's loader; raises what it raises. On a CPU weights become float32, as for mlx-vlm's loop."""
        from mlx_lm.utils import load_model

        model, _ = load_model(self._path)
        if mx.default_device().type == mx.DeviceType.cpu:
            model.set_dtype(mx.float32)
            mx.eval(model.parameters())
            self.note = "in float32, as mlx-vlm's loop on a CPU"
        self._model = model

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens as ``generate_step`` gives them."""
        from mlx_lm.generate import generate_step

        for token, _ in generate_step(mx.array(list(ids)), self._model, max_tokens=count):
            yield int(token)
