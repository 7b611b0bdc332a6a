"""The model under profile, loaded when first needed and freed on request; decoders on it, and decode by KV length."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from gemma3n_perf.decode import prompt as prompts
from gemma3n_perf.decode.decoder import Clock, Decoder
from gemma3n_perf.decode.device import Device, begin_generation
from gemma3n_perf.decode.engines import DEFAULT, ENGINES
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, Rounds, estimate
from gemma3n_perf.profile.types import Context, Contexts
from gemma3n_perf.workload import load as loading
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.workload import IMAGE_TOKENS, WARM_TOKENS, Shape, Workload, prompt_length

# Conditions are taken around the whole part, not around each short loop.
_NO_PROBE: Any = SimpleNamespace(start=lambda: None, stop=Conditions)
_THOUSAND = 1_000


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    """A prompt of ``modality``, ready to be timed, after which ``positions`` tokens are in the cache.

    ``first_token_s`` runs it into an empty cache and returns the seconds to the first token; ``tpot_s`` decodes some
    tokens from the fixed position and returns the seconds per token.
    """

    modality: str
    positions: int
    first_token_s: Callable[[], float]
    tpot_s: Callable[[], float]


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
            begin_generation()
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
        engine = ENGINES[DEFAULT].make(self.model())
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


def contexts(prompts: Sequence[Timed], rounds: Rounds, *, image_missing: str | None = None) -> Contexts:
    """Time all prompts, interleaved: text at two lengths or more, one of them the image's where there is one.

    An image is prefill. If its decode differs from text, the KV length must explain it or something else must be found;
    so both are measured at the same length, and the slope over lengths beside them. Raises UsageError.
    """
    text = sorted((one for one in prompts if one.modality == "text"), key=lambda one: one.positions)
    images = [one for one in prompts if one.modality == "image"]
    same = [one for one in text if images and one.positions == images[0].positions]
    if len(text) < 2 or len(images) > 1 or len(same) < len(images):
        raise UsageError(
            f"text at {[one.positions for one in text]} and images at {[one.positions for one in images]} positions",
            expected="text at two lengths or more, and at most one image, at one of them",
        )
    # Prefill takes long and compiles for each length: once to warm, then once in each of the fewest rounds.
    prefill = replace(rounds, most=LEAST_ROUNDS).interleave({one: one.first_token_s for one in (*text, *images)})
    decode = rounds.interleave({one: one.tpot_s for one in (*text, *images)})
    points = [Context(one.modality, one.positions, estimate(prefill[one]), estimate(decode[one])) for one in decode]
    lengths = np.array([one.positions for one in text], dtype=np.float64) / _THOUSAND
    centred = lengths - lengths.mean()
    slopes = centred @ np.array([decode[one] for one in text]) / (centred @ centred)
    if not images:
        return Contexts(tuple(points), estimate(slopes), None, None, None, image_missing)
    return Contexts(
        points=tuple(points[:-1]),
        slope_s=estimate(slopes),
        image=points[-1],
        image_s=estimate(np.subtract(decode[images[0]], decode[same[0]])),
        explained_s=estimate(slopes * (IMAGE_TOKENS / _THOUSAND)),
    )
