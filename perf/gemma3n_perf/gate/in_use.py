"""A fusion as its user has it: applied as ``gemma3n_perf.fuse`` does, and decoding one text after another by mlx-vlm.

What is timed elsewhere decodes alone first, rewinds and begins again, at the few positions of a workload. A fusion that
is fast only where it sees that is fast for nobody, nor is one that pays at other positions: each text goes on from a
context of a length that is drawn anew. Both models are in one process here and take turns, so small effects are not
seen: what blocks show is held against it where this shows less than half of it.
"""

import math
from collections.abc import Callable, Sequence
from itertools import islice
from statistics import fmean
from time import perf_counter as CLOCK  # noqa: N812 (bound before any fusion is imported)
from typing import Any

import numpy as np

from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.stats.student import chance_of, mean_and_error

TURNS, PROMPT, TOKENS = 9, 12, 40
"""Texts that count, and tokens of each: given, and decoded; reading it is in the clock too."""

MORE_TURNS, KNOWN = 16, 6
"""Texts where those do not tell the effect to a fraction of 1 in ``KNOWN``: half of a small one is seen in no nine."""

FURTHEST = 1_024
"""Positions of context, at most, that a text goes on from."""

MOST_S, PROBE = 60.0, 3
"""How long it may take, by so many tokens: where a token takes a second, nothing is said."""

TOWERS = ("audio_tower", "embed_audio", "embed_vision", "vision_tower")
"""Parts of a user's model that one of text alone may lack."""

ALPHA, LEAST_TURNS = 0.01, 5
"""The error at which less than half of an effect is sure, and of how many turns."""

Turns = tuple[tuple[float, float], ...]
"""Seconds per decoded token of the unfused and the fused model, by turn."""


def measure(model: Any, fusion: Fusion, chip: Chip, *, clock: Callable[[], float] = CLOCK) -> Turns:
    """Time an unfused model and a fused one that shares its weights in turns, each over a text of its own, after one
    that does not count; nothing where that took too long. Raises what the fusion raises.
    """
    # The gate reads what this found without MLX. Mlx-vlm's own loop gives a step other arguments, and another stream,
    # than the one that is timed elsewhere.
    from gemma3n_perf.decode.engines.mlx_vlm_stream import MlxVlmStream
    from gemma3n_perf.fusions.stepwise import filled

    fusion.enabled(chip)
    twin, fused = _with_towers(share(model)), _with_towers(share(model))
    fusion.apply(twin)  # fuse() tries it on one first
    fusion.apply(fused)
    rng = np.random.default_rng()  # what was learned of one text is of no use
    vocabulary = min(model.language_model.config.vocab_size, model.language_model.config.vocab_size_per_layer_input)

    def seconds(one: Any, ids: Sequence[int], tokens: int, context: int) -> float:
        cache = filled(one, context)
        begin = clock()
        for _ in islice(MlxVlmStream(one).generate(ids, cache, tokens), tokens):
            pass
        return (clock() - begin) / tokens

    def text() -> list[int]:
        return [int(i) for i in rng.integers(1, vocabulary, PROMPT)]

    furthest = min(FURTHEST, int(model.language_model.config.max_position_embeddings) - PROMPT - TOKENS)
    token_s, turn_tokens = seconds(model, text(), PROBE, 1), 2 * (PROMPT + TOKENS)
    if token_s * turn_tokens * (TURNS + 1) > MOST_S:
        return ()

    def turn(number: int) -> tuple[float, float]:
        ids, context, pair = text(), int(rng.integers(1, furthest)), (model, fused)
        found = {id(one): seconds(one, ids, TOKENS, context) for one in (pair if number % 2 else pair[::-1])}
        return found[id(model)], found[id(fused)]

    turn(0)
    turns = [turn(number) for number in range(1, TURNS + 1)]
    gain, error = mean_and_error([1 - fused / plain for plain, fused in turns])
    if error > abs(gain) / KNOWN:
        most = min(MORE_TURNS, int(MOST_S / (token_s * turn_tokens)) - 1)
        turns += [turn(number) for number in range(TURNS + 1, most + 1)]
    return tuple(turns)


def _with_towers(model: Any) -> Any:
    """Give a model of text alone the parts that a user's has, empty."""
    import mlx.nn as nn

    for name in TOWERS:
        if name not in model:
            model[name] = nn.Module()
    return model


def less(turns: Turns, effect: float) -> str | None:
    """Say that a fusion whose blocks are faster by ``effect``, a log ratio, is not half as much in use; None where it
    is, or where that is not sure."""
    if len(turns) < LEAST_TURNS or effect <= 0:
        return None
    # What a few texts pay counts for what it takes, so seconds are compared, and not their logarithms.
    half, usual = math.exp(-effect / 2), fmean(plain for plain, _ in turns)
    if chance_of([(fused - plain * half) / usual for plain, fused in turns]) >= ALPHA:
        return None
    gain = usual / fmean(fused for _, fused in turns) - 1
    return (
        f"as its user has it, it is {100 * gain:+.1f} % faster over {len(turns)} texts, "
        f"where blocks say {100 * math.expm1(effect):+.1f} %"
    )
