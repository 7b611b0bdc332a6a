"""A policy that cannot be carried out is refused when it is written."""

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.policy import Policy


@pytest.mark.parametrize(
    "change",
    [
        {"minimum_effect": 0.0},
        {"margin": 1.5},
        {"margin": 0.001},
        {"alpha": 0.6},
        {"power": 1.0},
        {"rho": 0.0},
        {"min_launches": 1},
        {"prior_weight": -1},
        {"reported": 0.01},
        {"shares": 0},
        {"session_sd": -0.1},
        {"budget_s": 0.0},
    ],
)
def test_impossible_rule_is_refused(change: dict[str, float]) -> None:
    """Each rule has a range, and the error names what is out of it."""
    with pytest.raises(UsageError):
        Policy(**change)  # type: ignore[arg-type]


def test_defaults_are_the_documented_ones() -> None:
    """Half a percent counts, one percent bounds no-change; decided at 98 %, reported at 95 %."""
    policy = Policy()
    assert (policy.minimum_effect, policy.margin, policy.alpha, policy.reported) == (0.005, 0.01, 0.02, 0.05)
