"""mlx-lm on the same checkpoint folder: loaded by its own loader, decoded by its own ``generate_step``.

Whether it can load a checkpoint is for it to say, each time. Source: mlx_lm/utils.py and mlx_lm/generate.py.
"""

from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mlx.core as mx

from gemma3n_perf.decode.engines.generator import GeneratorEngine, Given
from gemma3n_perf.errors import ArmUnavailableError


class MlxLm(GeneratorEngine):
    """mlx-lm's own model class and loop, greedy. ``path`` is a checkpoint's folder, ``model`` what was loaded of it."""

    name = "mlx-lm"

    def __init__(self, path: Path, model: Any = None) -> None:
        super().__init__(model)
        self._path = path
        try:
            self.version = metadata.version("mlx-lm")
        except metadata.PackageNotFoundError:
            self.version = None
        if mx.default_device().type == mx.DeviceType.cpu:
            self.note = "in float32, as mlx-vlm's loop on a CPU"

    @property
    def stream_of_generation(self) -> Any:
        """mlx-lm's own."""
        from mlx_lm.generate import generation_stream

        return generation_stream

    def load(self) -> None:
        """Load with mlx-lm's loader. Raises as ``load_model``."""
        super().__init__(load_model(self._path))

    def generate(self, ids: Sequence[int], cache: list[Any], count: int, **options: int) -> Iterator[Given]:
        """As ``generate_step`` gives them."""
        from mlx_lm.generate import generate_step

        results = generate_step(mx.array(list(ids)), self._model, max_tokens=count, prompt_cache=cache, **options)
        yield from ((int(token), logprobs) for token, logprobs in results)


def load_model(path: Path) -> Any:
    """Load with mlx-lm's loader; on a CPU weights become float32, as for mlx-vlm's loop.

    Tensors may have the names that mlx-vlm's converter gives them. Raises ArmUnavailableError with what it says.
    """
    try:
        from mlx_lm import utils

        model: Any = utils.load_model(path, get_model_classes=_classes)[0]
    except Exception as error:  # of any kind: it has none of its own
        said = " ".join(str(error).split())[:300]
        raise ArmUnavailableError(
            f"mlx-lm cannot load {path}: {type(error).__name__}: {said}",
            expected="a checkpoint that mlx_lm.utils.load_model accepts",
            remedy="measure it with mlx-vlm, or try another mlx-lm",
        ) from error
    if mx.default_device().type == mx.DeviceType.cpu:
        model.set_dtype(mx.float32)
        mx.eval(model.parameters())
    return model


def _classes(config: dict[str, Any]) -> tuple[Any, Any]:
    """mlx-lm's classes of model and arguments, the model one that knows mlx-vlm's names of tensors."""
    from mlx_lm.utils import _get_classes

    model, arguments = _get_classes(config)

    class Model(model):  # type: ignore[misc, valid-type]
        def sanitize(self, weights: dict[str, Any]) -> Any:
            return super().sanitize({_named(name): value for name, value in weights.items()})

    return Model, arguments


def _named(name: str) -> str:
    if name.startswith("model."):
        return name
    return "model." + name.replace("language_model.model.", "language_model.", 1)
