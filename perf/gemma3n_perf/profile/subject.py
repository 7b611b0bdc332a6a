"""The model under profile, and decode sessions on it: loaded when first needed, let go when asked."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.decoder import Clock, DecodeSession, Device
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import IMAGE_TOKENS, Shape, Workload


@dataclass(eq=False)
class Subject:
    """One workload's model. ``tokens`` is the length of a timed decode, ``towers`` whether it may have to see."""

    workload: Workload
    checkpoint: Checkpoint
    tokens: int
    towers: Callable[[], bool]
    clock: Clock
    device: Device
    note: Callable[[str], None]
    _model: Any = field(default=None, init=False)
    _own: tuple[DecodeSession, Any] | None = field(default=None, init=False)

    def model(self) -> Any:
        """Return mlx-vlm's model object. Raises what loading raises."""
        if self._model is None:
            self.note("loading")
            self._model = loading.load(self.checkpoint, with_towers=self.checkpoint.has_vision and self.towers())
        return self._model

    def prepared(self) -> tuple[DecodeSession, Any]:
        """Return the workload's own session, prefilled and warm, and its engine."""
        if self._own is None:
            self._own = self._made(self.workload)
        return self._own

    def tpot_s(self) -> float:
        """Time one decode of the workload, in seconds per token."""
        return _decode(self.prepared()[0], self.tokens)

    def timed(self, workload: Workload) -> "Timed":
        """Return another workload's session on this model, prefilled and warm, to be timed."""
        session, _ = self._made(workload)
        return Timed(session, min(self.tokens, workload.shape.generate))

    def let_go(self) -> None:
        """Free the model and MLX's cache; it is loaded again where it is needed again."""
        self._model = self._own = None
        gc.collect()
        import mlx.core as mx

        mx.clear_cache()

    def _made(self, workload: Workload) -> tuple[DecodeSession, Any]:
        from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine

        engine = MlxVlmEngine(self.model())
        prompt = prompts.make(workload, self.checkpoint)
        session = DecodeSession(engine, workload, prompt, clock=self.clock, device=self.device)
        session.prepare()
        _decode(session, 2)
        return session, engine


@dataclass(frozen=True, slots=True)
class Timed:
    """A session whose prefill and short decodes of ``tokens`` are timed."""

    session: DecodeSession
    tokens: int

    def first_token_s(self) -> float:
        """Time one prefill."""
        return self.session.time_to_first_token()

    def tpot_s(self) -> float:
        """Time one short decode, in seconds per token."""
        return _decode(self.session, self.tokens)


def image_shape(checkpoint: str, generate: int) -> Shape:
    """Return the shape of a workload with an image."""
    return Shape(296 if checkpoint == "nano" else 320, generate)


def without_images(workload: Workload, checkpoint: Checkpoint, lengths: Sequence[int]) -> str | None:
    """None where the checkpoint takes images and ``lengths`` leave time for one, else why not."""
    name = workload.checkpoint
    try:
        prompts.make(Workload.make(name, "image", image_shape(name, 4)), checkpoint)
    except UsageError as error:
        return error.found
    if not set(lengths) - set(range(IMAGE_TOKENS)):
        return "a prompt with an image takes too long on this device"
    return None


def _decode(session: DecodeSession, steps: int) -> float:
    return session.run(_Quiet(), steps=steps)[0].tpot_s


class _Quiet:
    """Conditions are taken around the whole part, not around each short loop."""

    def start(self) -> None:
        """Begin nothing."""

    def stop(self) -> Conditions:
        """Return that nothing is known."""
        return Conditions()
