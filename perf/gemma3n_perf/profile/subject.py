"""The model under profile, and decoders on it: loaded when first needed, freed on request."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.decoder import Clock, Decoder, Device
from gemma3n_perf.decode.engines import DEFAULT, ENGINES
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.profile.contexts import Timed
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import IMAGE_TOKENS, WARM_TOKENS, Shape, Workload, prompt_length

# Conditions are taken around the whole part, not around each short loop.
_NO_PROBE: Any = SimpleNamespace(start=lambda: None, stop=Conditions)


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
    _own: tuple[Decoder, Any] | None = field(default=None, init=False)

    def model(self) -> Any:
        """Return mlx-vlm's model object. Raises what loading raises."""
        if self._model is None:
            self.note("loading")
            self._model = loading.load(self.checkpoint, with_towers=self.checkpoint.has_vision and self.towers())
        return self._model

    def prepared(self) -> tuple[Decoder, Any]:
        """Return the workload's own decoder, prefilled and warm, and its engine."""
        if self._own is None:
            self._own = self._made(self.workload)
        return self._own

    def tpot_s(self) -> float:
        """Time one decode of the workload, in seconds per token."""
        return _tpot_s(self.prepared()[0], self.tokens)

    def timed(self, workload: Workload) -> Timed:
        """Return another workload on this model, prefilled and warm, to be timed."""
        decoder, _ = self._made(workload)
        decode = partial(_tpot_s, decoder, min(self.tokens, workload.shape.generate))
        return Timed(workload.modality, workload.shape.prompt + WARM_TOKENS, decoder.time_to_first_token, decode)

    def free(self) -> None:
        """Free the model and MLX's cache; it is loaded again where it is needed again."""
        self._model = self._own = None
        gc.collect()
        import mlx.core as mx

        mx.clear_cache()

    def _made(self, workload: Workload) -> tuple[Decoder, Any]:
        engine = ENGINES[DEFAULT](self.model())
        prompt = prompts.make(workload, self.checkpoint)
        decoder = Decoder(engine, workload, prompt, clock=self.clock, device=self.device)
        decoder.prepare()
        _tpot_s(decoder, 2)
        return decoder, engine


def image_workload(checkpoint: str, generate: int) -> Workload:
    """Return the workload that shows a checkpoint an image."""
    return Workload.make(checkpoint, "image", Shape(prompt_length(checkpoint, "image"), generate))


def without_images(checkpoint: Checkpoint, name: str, lengths: Sequence[int]) -> str | None:
    """None where the checkpoint takes images and ``lengths`` leave time for one, else why not."""
    try:
        prompts.make(image_workload(name, 4), checkpoint)
    except UsageError as error:
        return error.found
    return None if max(lengths) >= IMAGE_TOKENS else "a prompt with an image takes too long on this device"


def _tpot_s(decoder: Decoder, steps: int) -> float:
    return decoder.run(_NO_PROBE, steps=steps)[0].tpot_s
