"""The engines, each named in one place and imported where it is first used, for MLX takes seconds to import."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gemma3n_perf.decode.device import begin_generation
from gemma3n_perf.decode.engine import Engine
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.errors import UsageError
from gemma3n_perf.workload import load
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import Shape, Workload


def _mlx_vlm(model: Any) -> Engine:
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine

    return MlxVlmEngine(model, _mlx_vlm_shaped)


def _mlx_vlm_shaped(model: Any, shape: Shape, prompt: Prompt) -> Any:
    from gemma3n_perf.decode.engines.mlx_vlm_shaped import MlxVlmPrefills, MlxVlmShaped

    return (MlxVlmPrefills if shape.prefill_alone else MlxVlmShaped)(model, shape, prompt)


def _stream_generate(model: Any) -> Engine:
    from gemma3n_perf.decode.engines.mlx_vlm_stream import MlxVlmStream

    return MlxVlmStream(model)


def _mlx_lm(model: Any) -> Engine:
    from gemma3n_perf.decode.engines.mlx_lm import MlxLm

    return MlxLm(Path(), model)


def _load_mlx_lm(checkpoint: Checkpoint, *, with_towers: bool) -> Any:
    from gemma3n_perf.decode.engines.mlx_lm import load_model

    return load_model(checkpoint.path)


@dataclass(frozen=True, slots=True)
class Kind:
    """How an engine is made of a model, and what loads that: None is mlx-vlm's own. ``text_alone`` decodes plain shapes
    of text and nothing else."""

    make: Callable[[Any], Engine]
    loader: Callable[..., Any] | None = None
    text_alone: bool = False

    def load(self, checkpoint: Checkpoint, *, with_towers: bool) -> Any:
        """Return the model. Raises what loading raises."""
        begin_generation()
        return (self.loader or load.load)(checkpoint, with_towers=with_towers)


ENGINES = {
    "mlx_vlm": Kind(_mlx_vlm),
    "stream_generate": Kind(_stream_generate, text_alone=True),
    "mlx_lm": Kind(_mlx_lm, _load_mlx_lm, text_alone=True),
}
"""Engines that this suite times, by the name that ``engine:NAME`` of an arm and ``@NAME`` of a workload give. The first
one, whose steps this suite calls itself, is the default."""

DEFAULT = next(iter(ENGINES))


def kind_of(workload: Workload, engine: str = DEFAULT, fusions: Sequence[str] = ()) -> Kind:
    """Return what decodes ``workload`` in an arm of ``engine`` and ``fusions``.

    Raises UsageError for an engine that is not known, or that cannot do this.
    """
    if workload.engine == DEFAULT:
        raise UsageError(f"{workload} is written {workload.bare}", expected="another engine behind @, or none")
    name = workload.engine or engine
    if name not in ENGINES:
        raise UsageError(f"there is no engine {name!r}", expected=" or ".join(ENGINES))
    if workload.engine and engine not in (DEFAULT, name):
        raise UsageError(f"an arm of engine:{engine} cannot decode {workload}", expected=f"engine:{name}, or none")
    kind = ENGINES[name]
    if kind.text_alone and not (workload.modality == "text" and workload.shape.is_plain):
        raise UsageError(
            f"the engine {name} does not decode {workload.modality}/{workload.shape}",
            expected="text, and a shape ppN-tgM",
            remedy=f"measure {workload.bare} by the engine {DEFAULT}",
        )
    if fusions and kind.loader:
        raise UsageError(
            f"the engine {name} has a model of its own, so {' and '.join(fusions)} cannot change it",
            expected="fusions on mlx-vlm's model alone",
        )
    return kind


def requested(text: str) -> Workload:
    """Read the id of a workload that a user gave. Raises UsageError for one that is none, or that no engine decodes."""
    workload = Workload.parse(text)
    kind_of(workload)
    return workload


def counts_graph(workload: Workload) -> bool:
    """Whether a workload's exact counts can be told: they are those of mlx-vlm's model."""
    return kind_of(workload).loader is None


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
