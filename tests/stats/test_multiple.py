"""Several workloads share one error."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.verdicts import Judgement, Verdict

WIN, LOSS, NO_CHANGE, OPEN = Verdict.WIN, Verdict.LOSS, Verdict.NO_CHANGE, Verdict.INCONCLUSIVE


def levels(
    names: str, verdict: Callable[[str, float], Verdict], alpha: float = 0.06
) -> Mapping[str, tuple[Verdict, float]]:
    """Judge a family of names of one letter; return verdicts and the errors at which they were given."""
    found = step_down(
        list(names), lambda name, shares: Judgement(verdict(name, alpha / shares), "", level=alpha / shares)
    )
    return {name: (one.verdict, round(one.level, 9)) for name, one in found.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in the order given (Holm 1979)."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def test_holm_adjusts_as_published() -> None:
    """0.01, 0.04, 0.03, 0.005 adjust to 0.03, 0.06, 0.06, 0.02, in the order given."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.2, 0.8]) == pytest.approx((1.0, 0.6, 1.0))


def test_step_down_equals_holm_on_p_values() -> None:
    """Judging by levels decides exactly the workloads that adjusted p-values do."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        p = dict(zip("abcdef", (rng.random(6) ** 4).tolist(), strict=True))
        found = levels("abcdef", lambda name, alpha, p=p: WIN if p[name] <= alpha else OPEN, 0.05)  # type: ignore[misc]
        assert [one is WIN for one, _ in found.values()] == [adjusted <= 0.05 for adjusted in holm(list(p.values()))]


@pytest.mark.parametrize("claim", [WIN, LOSS])
def test_undecided_are_judged_at_the_level_that_is_left(claim: Verdict) -> None:
    """When one of three is decided, the other two share the error between them."""
    found = levels("abc", lambda name, alpha: claim if name == "a" else OPEN)
    assert found == {"a": (claim, 0.02), "b": (OPEN, 0.03), "c": (OPEN, 0.03)}


def test_every_claim_hands_its_share_on() -> None:
    """One claim at a third of the error, the next at a half, the last at all of it."""
    at = {"a": 0.02, "b": 0.03, "c": 0.06}
    found = levels("abc", lambda name, alpha: WIN if alpha >= at[name] - 1e-12 else OPEN)
    assert found == {name: (WIN, share) for name, share in at.items()}


def test_what_is_closed_without_a_claim_hands_nothing_on() -> None:
    """Its share of the error may have been spent on a false claim; nor is it closed at more than its own share."""
    found = levels("abc", lambda name, alpha: NO_CHANGE if name == "a" else OPEN)
    assert found == {"a": (NO_CHANGE, 0.02), "b": (OPEN, 0.02), "c": (OPEN, 0.02)}
    late = levels("ab", lambda name, alpha: WIN if name == "a" else NO_CHANGE if alpha > 0.03 else OPEN)
    assert late == {"a": (WIN, 0.03), "b": (OPEN, 0.03)}


def test_a_claim_beside_a_no_change_hands_on_its_own_share_only() -> None:
    """Of four, one unchanged and one won: the other two are judged at a third of the error, not at a half."""
    found = levels("abcd", lambda name, alpha: {"a": NO_CHANGE, "b": WIN}.get(name, OPEN))
    assert found == {"a": (NO_CHANGE, 0.015), "b": (WIN, 0.015), "c": (OPEN, 0.02), "d": (OPEN, 0.02)}


def test_what_is_closed_is_not_judged_again() -> None:
    """Neither for a claim at the larger share that another's claim leaves, nor at all."""
    calls: list[str] = []

    def verdict(name: str, alpha: float) -> Verdict:
        calls.append(name)
        return WIN if name == "b" or alpha > 0.02 else NO_CHANGE

    assert levels("abc", verdict) == {"a": (NO_CHANGE, 0.02), "b": (WIN, 0.02), "c": (NO_CHANGE, 0.02)}
    assert calls == ["a", "b", "c"]


def test_unchanged_workloads_at_the_edge_are_held_to_one_error() -> None:
    """Twelve at the smallest effect that counts, two fifths called no-change: one family in twenty claims a win.

    Where what was called no-change handed its error on, one in eleven did."""
    rng, claims = np.random.default_rng(5), 0
    for _ in range(4000):
        p = dict(zip("abcdefghijkl", rng.random(12).tolist(), strict=True))
        found = levels(
            "abcdefghijkl",
            lambda name, alpha, p=p: WIN if p[name] < alpha else NO_CHANGE if p[name] > 0.6 else OPEN,  # type: ignore[misc]
            0.05,
        )
        claims += WIN in [verdict for verdict, _ in found.values()]
    assert claims / 4000 <= 0.057


def test_a_workload_named_twice_is_refused() -> None:
    """Two judgements of one workload are not two workloads."""
    with pytest.raises(UsageError, match="repeat"):
        levels("aa", lambda name, alpha: WIN)
