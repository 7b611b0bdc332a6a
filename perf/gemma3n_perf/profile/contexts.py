"""Decode against KV length, and text against image at one length, all interleaved.

Opinion: an image is prefill. If its decode differs from text, the KV length must explain it or something else must be
found; so both are measured at the same length, and the slope over lengths beside them.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, Note, estimate, interleaved
from gemma3n_perf.profile.types import Context, Contexts
from gemma3n_perf.workload.workload import IMAGE_TOKENS

THOUSAND = 1_000


class Timed(Protocol):
    """A prepared session of one prompt."""

    def first_token_s(self) -> float:
        """Prefill from an empty cache to the first token, seconds."""

    def tpot_s(self) -> float:
        """Decode some tokens from the fixed position, seconds per token."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A prompt of ``modality`` after which ``positions`` tokens are in the cache."""

    modality: str
    positions: int


def measure(
    sessions: Mapping[Variant, Timed], *, rounds: int, rng: random.Random, note: Note = lambda text: None,
    enough: Callable[[int], bool] = lambda done: False, image_missing: str | None = None,
) -> Contexts:  # fmt: skip
    """Time all variants. Needs text at two lengths or more, one of them the image's where there is one."""
    text = sorted((one for one in sessions if one.modality == "text"), key=lambda one: one.positions)
    images = [one for one in sessions if one.modality == "image"]
    if len(text) < 2 or len(images) > 1 or any(one.positions not in {t.positions for t in text} for one in images):
        raise UsageError(
            f"text at {[one.positions for one in text]} and images at {[one.positions for one in images]} positions",
            expected="text at two lengths or more, and at most one image, at one of them",
        )
    order = [*text, *images]
    # Prefill takes long and compiles for each length: once to warm, then once in each of the fewest rounds.
    prefill = interleaved(
        {str(i): sessions[one].first_token_s for i, one in enumerate(order)}, LEAST_ROUNDS, rng=rng, note=note
    )
    decode = interleaved(
        {str(i): sessions[one].tpot_s for i, one in enumerate(order)}, rounds, rng=rng, note=note, enough=enough
    )
    points = [
        Context(one.modality, one.positions, estimate(prefill[str(i)]), estimate(decode[str(i)]))
        for i, one in enumerate(order)
    ]
    lengths = np.array([one.positions for one in text], dtype=np.float64) / THOUSAND
    times = np.array([decode[str(i)] for i in range(len(text))])
    centred = lengths - lengths.mean()
    slopes = [float(value) for value in centred @ times / (centred @ centred)]
    slope = estimate(slopes)
    if not images:
        return Contexts(tuple(points), slope, None, None, None, image_missing)
    same = next(i for i, one in enumerate(text) if one.positions == images[0].positions)
    return Contexts(
        points=tuple(points[:-1]),
        slope_s=slope,
        image=points[-1],
        image_s=estimate([b - a for a, b in zip(decode[str(same)], decode[str(len(text))], strict=True)]),
        explained_s=estimate([value * IMAGE_TOKENS / THOUSAND for value in slopes]),
    )
