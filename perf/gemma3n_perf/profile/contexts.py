"""Decode against KV length, and text against image at one length, all interleaved.

An image is prefill. If its decode differs from text, the KV length must explain it or something else must be found; so
both are measured at the same length, and the slope over lengths beside them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, Rounds, estimate
from gemma3n_perf.profile.types import Context, Contexts
from gemma3n_perf.workload.workload import IMAGE_TOKENS

THOUSAND = 1_000


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


def measure(prompts: Sequence[Timed], rounds: Rounds, *, image_missing: str | None = None) -> Contexts:
    """Time all prompts. Needs text at two lengths or more, one of them the image's where there is one."""
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
    lengths = np.array([one.positions for one in text], dtype=np.float64) / THOUSAND
    centred = lengths - lengths.mean()
    slopes = centred @ np.array([decode[one] for one in text]) / (centred @ centred)
    slope = estimate(slopes)
    if not images:
        return Contexts(tuple(points), slope, None, None, None, image_missing)
    return Contexts(
        points=tuple(points[:-1]),
        slope_s=slope,
        image=points[-1],
        image_s=estimate(np.subtract(decode[images[0]], decode[same[0]])),
        explained_s=estimate(slopes * (IMAGE_TOKENS / THOUSAND)),
    )
