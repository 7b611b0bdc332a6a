"""The engines, each named in one place and imported where it is first used, for MLX takes seconds to import."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gemma3n_perf.decode.decoder import Engine
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.workload.workload import Shape


def _mlx_vlm(model: Any) -> Engine:
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine

    return MlxVlmEngine(model, _mlx_vlm_shaped)


def _mlx_vlm_shaped(model: Any, shape: Shape, prompt: Prompt) -> Any:
    from gemma3n_perf.decode.engines.mlx_vlm_shaped import MlxVlmPrefills, MlxVlmShaped

    return (MlxVlmPrefills if shape.prefill_alone else MlxVlmShaped)(model, shape, prompt)


ENGINES: dict[str, Callable[[Any], Engine]] = {"mlx_vlm": _mlx_vlm}
"""Engines whose steps this suite times: the name that ``engine:NAME`` of an arm gives, and what makes one of
mlx-vlm's loaded model. The first one is the default."""

DEFAULT = next(iter(ENGINES))


def side_by_side(model: Any, path: Path, run: Any) -> tuple[list[Any], list[Any]]:
    """Engines that a profile compares on the checkpoint in ``path``, which ``model`` is loaded from.

    First those that give tokens one by one, the one that the others are compared with in front; then programs that
    time themselves, started with ``run``.
    """
    from gemma3n_perf.decode.engines.mlx_lm import MlxLm
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmLoop
    from gemma3n_perf.decode.engines.mlx_vlm_stream import MlxVlmStream
    from gemma3n_perf.decode.engines.mlxcel import Mlxcel

    return [MlxVlmLoop(model), MlxVlmStream(model), MlxLm(path)], [Mlxcel(path, run)]
