"""Several workloads share one error."""

import numpy as np
import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.multiple import holm, step_down


def test_holm_adjusts_as_published() -> None:
    """0.01, 0.04, 0.03, 0.005 adjust to 0.03, 0.06, 0.06, 0.02, in the order given."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_never_exceeds_one_and_keeps_order() -> None:
    """Adjusted values stay probabilities and keep the ranking."""
    adjusted = holm([0.9, 0.2, 0.8])
    assert adjusted == pytest.approx((1.0, 0.6, 1.0))
    assert holm([]) == ()


def test_holm_refuses_what_is_no_probability() -> None:
    """A p-value of 1.2 is a mistake upstream."""
    with pytest.raises(UsageError):
        holm([0.1, 1.2])


def test_step_down_equals_holm_on_p_values() -> None:
    """Judging by levels decides exactly the workloads that adjusted p-values do."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        p = dict(zip("abcdef", (rng.random(6) ** 4).tolist(), strict=True))

        def significant(name: str, alpha: float, p: dict[str, float] = p) -> bool:
            return p[name] <= alpha

        levels = step_down(list(p), 0.05, significant, bool)
        assert list(levels.values()) == [adjusted <= 0.05 for adjusted in holm(list(p.values()))]


def test_undecided_are_judged_at_the_level_that_is_left() -> None:
    """When one of three is decided, the other two share the error between them."""
    seen = step_down(["a", "b", "c"], 0.06, lambda name, alpha: (name, alpha), lambda j: j[0] == "a")
    assert seen == {"a": ("a", 0.02), "b": ("b", 0.03), "c": ("c", 0.03)}


def test_what_is_closed_without_a_claim_hands_nothing_on() -> None:
    """Its share of the error may have been spent on a false claim; nor is it closed at more than its own share."""
    seen = step_down(["a", "b", "c"], 0.06, lambda name, alpha: (name, alpha), lambda j: False, lambda j: j[0] == "a")
    assert seen == {"a": ("a", 0.02), "b": ("b", 0.02), "c": ("c", 0.02)}
    late = step_down(
        ["a", "b"], 0.06, lambda name, alpha: (name, alpha), lambda j: j[0] == "a", lambda j: j == ("b", 0.06)
    )
    assert late == {"a": ("a", 0.03), "b": ("b", 0.03)}


def test_unchanged_workloads_at_the_edge_are_held_to_one_error() -> None:
    """Twelve at the smallest effect that counts, two fifths called no-change: one family in twenty claims a win.

    Where what was called no-change handed its error on, one in eleven did."""
    rng, claims = np.random.default_rng(5), 0
    for _ in range(4000):
        p = dict(enumerate(rng.random(12).tolist()))
        found = step_down(
            list(map(str, p)), 0.05,
            lambda name, alpha, p=p: (p[int(name)] < alpha) - (p[int(name)] > 0.6),  # type: ignore[misc]
            lambda call: call == 1, lambda call: call == -1,
        )  # fmt: skip
        claims += 1 in found.values()
    assert claims / 4000 <= 0.057


def test_a_workload_named_twice_is_refused() -> None:
    """Two judgements of one workload are not two workloads."""
    with pytest.raises(UsageError, match="repeat"):
        step_down(["a", "a"], 0.05, lambda name, alpha: True, bool)
