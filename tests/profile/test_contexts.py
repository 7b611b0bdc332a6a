"""Decode against KV length, on prompts of known speed."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.rounds import Rounds
from gemma3n_perf.profile.subject import Timed, contexts


@dataclass
class Prompt:
    """Takes ``base`` and a swing that all variants of a round share."""

    base: float
    swings: "itertools.cycle[float]"
    prefill: float

    def first_token_s(self) -> float:
        """Return the prefill."""
        return self.prefill

    def tpot_s(self) -> float:
        """Return the next time."""
        return self.base * next(self.swings)


def timed(modality: str, positions: int, base: float, swings: Sequence[float], prefill: float = 0.1) -> Timed:
    """Return a prompt that is ready to be timed."""
    made = Prompt(base, itertools.cycle(swings), prefill)
    return Timed(modality, positions, made.first_token_s, made.tpot_s)


def prompts(
    image: float | None = None, slope: float = 2e-6, swings: tuple[float, ...] = (1.0, 1.1, 0.9, 1.2, 1.0, 0.95)
) -> list[Timed]:
    """Return text at three lengths and an image at the second, all with the same swings round by round."""
    made = [timed("text", n, 0.01 + slope * n, swings, prefill=n / 1e4) for n in (68, 324, 2116)]
    return made if image is None else [*made, timed("image", 324, image, swings, prefill=0.3)]


def test_the_slope_is_what_each_thousand_tokens_add() -> None:
    """A time per token that grows by 2 us a token grows by 2 ms in a thousand, whatever the rounds' common swing."""
    found = contexts(prompts(), Rounds(12, random.Random(1)))
    assert found.slope_s.value == pytest.approx(0.002, rel=0.05)
    assert found.slope_s.low <= 0.002 <= found.slope_s.high
    assert [one.positions for one in found.points] == [68, 324, 2116]
    assert found.points[2].ttft_s.value == pytest.approx(0.2116)
    assert (found.image, found.image_s, found.explained_s) == (None, None, None)


def test_an_image_is_compared_with_text_of_its_own_length() -> None:
    """The same time at the same length: nothing is left to explain, and 256 tokens cost what the slope says."""
    found = contexts(prompts(image=0.01 + 2e-6 * 324), Rounds(12, random.Random(1)))
    assert found.image is not None
    assert found.image_s is not None
    assert found.explained_s is not None
    assert found.image_s.low <= 0 <= found.image_s.high
    assert found.explained_s.value == pytest.approx(256 * found.slope_s.value / 1_000)
    assert found.image.ttft_s.value == pytest.approx(0.3)


def test_a_slower_image_is_seen() -> None:
    """5 % more at the same length is a difference that the length does not explain."""
    found = contexts(prompts(image=1.05 * (0.01 + 2e-6 * 324)), Rounds(12, random.Random(1)))
    assert found.image_s is not None
    assert found.image_s.low > 0


def test_why_there_is_no_image_is_kept() -> None:
    """A checkpoint without a tower is a reason, not a zero."""
    found = contexts(prompts(), Rounds(6, random.Random(1)), image_missing="no tower")
    assert found.image_missing == "no tower"


def test_a_single_length_or_an_image_without_its_text_is_refused() -> None:
    """There is no slope of one point, and no difference without its pair."""
    one = [each for each in prompts() if each.positions == 68]
    with pytest.raises(UsageError, match="two lengths"):
        contexts(one, Rounds(6, random.Random(1)))
    apart = [*prompts(), timed("image", 500, 0.01, (1.0,))]
    with pytest.raises(UsageError, match="500"):
        contexts(apart, Rounds(6, random.Random(1)))
