"""A policy that cannot be carried out is refused when it is written."""

from dataclasses import asdict

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.policy import MARGIN, RARE, Policy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minimum_effect": 0.0}, "minimum effect 0.0"),
        ({"minimum_effect": 1.0}, "minimum effect 1.0 and margin"),
        ({"margin": 0.0}, "and margin 0.0"),
        ({"margin": 1.0}, "and margin 1.0"),
        ({"margin": 0.0049}, "is below the minimum effect"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"alpha": 0.5}, "alpha 0.5"),
        ({"power": 0.0}, "power 0.0"),
        ({"power": 1.0}, "power 1.0"),
        ({"rho": 0.0}, "rho 0.0"),
        ({"reported": 0.019}, "reported error 0.019"),
        ({"reported": 0.5}, "reported error 0.5"),
        ({"shares": 0}, "0 shares"),
        ({"session_sd": -1e-9}, "sessions -1e-09 apart"),
        ({"session_sd": 1.0}, "sessions 1.0 apart"),
        ({"min_launches": 1}, "after 1 launches"),
        ({"prior_weight": -1}, "prior weight -1"),
        ({"budget_s": 0.0}, "a budget of 0.0 s"),
    ],
)
def test_impossible_rule_is_refused(change: dict[str, float], said: str) -> None:
    """Each rule has a range, and the error names what is out of it."""
    with pytest.raises(UsageError, match=said):
        Policy(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"minimum_effect": 0.999, "margin": 0.999},
        {"minimum_effect": 0.01},
        {"alpha": 0.05},
        {"alpha": 0.499, "reported": 0.499},
        {"power": 0.999},
        {"rho": 1e-9},
        {"shares": 1},
        {"session_sd": 0.0},
        {"session_sd": 0.999},
        {"min_launches": 2},
        {"prior_weight": 0},
        {"budget_s": 1e-9},
    ],
)
def test_a_rule_at_the_end_of_its_range_can_be_carried_out(change: dict[str, float]) -> None:
    """What is refused lies beyond."""
    policy = Policy(**change)  # type: ignore[arg-type]
    assert asdict(policy) == asdict(Policy()) | change


def test_defaults_are_the_documented_ones() -> None:
    """Half a percent counts, one percent bounds no-change; decided at 98 %, no-change at 99.25 %, reported at 95 %."""
    assert asdict(Policy()) == {
        "minimum_effect": 0.005,
        "margin": 0.01,
        "alpha": 0.02,
        "alpha_same": 0.0075,
        "reported": 0.05,
        "shares": 1,
        "power": 0.8,
        "rho": 1.5,
        "min_launches": 3,
        "prior_weight": 12,
        "stale_after_days": 90,
        "budget_s": 60.0,
        "suspicious": False,
        "session_sd": 0.0,
    }
    assert (MARGIN, RARE) == (0.01, 0.05)
