"""Interleaved rounds and their medians."""

import random

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, Rounds, estimate


def test_every_variant_is_taken_once_a_round_in_an_order_that_changes() -> None:
    """What drifts must not favour the variant that always comes first."""
    log: list[str] = []
    found = Rounds(20, random.Random(1)).interleave(
        {"a": lambda: log.append("a") or len(log), "b": lambda: log.append("b") or len(log)}  # type: ignore[func-returns-value]
    )
    rounds = ["".join(log[i : i + 2]) for i in range(0, 40, 2)]
    assert set(rounds) == {"ab", "ba"}
    assert [len(found[name]) for name in "ab"] == [20, 20]
    assert found["a"][0] == rounds[0].index("a") + 1


def test_it_may_end_early_but_never_before_an_interval_is_possible() -> None:
    """A budget that is spent at once still buys the fewest rounds."""
    assert len(Rounds(30, random.Random(1), enough=lambda done: True).interleave({"a": int})["a"]) == LEAST_ROUNDS
    assert len(Rounds(30, random.Random(1), enough=lambda done: done >= 9).interleave({"a": int})["a"]) == 9


def test_too_few_rounds_are_refused() -> None:
    """Five values give no 95 % interval for their median."""
    with pytest.raises(UsageError, match="5 rounds"):
        Rounds(5, random.Random(1)).interleave({"a": int})
    with pytest.raises(UsageError, match="5 rounds"):
        estimate([1.0] * 5)


def test_one_wild_round_moves_neither_the_median_nor_the_interval() -> None:
    """Rounds swing by a quarter and more: the estimate must not."""
    calm = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09]
    found, wild = estimate(calm), estimate([*calm[:-1], 50.0])
    assert (found.value, found.low, found.high, found.rounds) == pytest.approx((1.045, 1.01, 1.08, 10))
    assert wild == found


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    """Over many skewed samples of eight, 95 % of the intervals or more hold the true median."""
    rng = random.Random(7)
    inside = 0
    for _ in range(1_000):
        found = estimate([rng.lognormvariate(0.0, 1.0) for _ in range(8)])
        inside += found.low <= 1.0 <= found.high
    assert inside >= 940
