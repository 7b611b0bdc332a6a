"""What a judgement says of its numbers."""

from dataclasses import replace

import pytest

from gemma3n_perf.stats.messages import percent, shown
from gemma3n_perf.stats.verdicts import Verdict, not_measured


def test_a_percentage_has_a_sign_unless_it_is_zero() -> None:
    """As it is rounded."""
    assert [percent(one) for one in (0.0, -1e-6, 0.01, -0.01)] == ["0.00 %", "0.00 %", "+1.00 %", "-1.00 %"]


@pytest.mark.parametrize(
    ("verdict", "where"),
    [
        (Verdict.WIN, "above +0.50 %"),
        (Verdict.LOSS, "below -0.50 %"),
        (Verdict.NO_CHANGE, "within -1.00 % to +1.00 %"),
    ],
)
def test_a_decided_interval_is_said_with_what_it_lies_beyond(verdict: Verdict, where: str) -> None:
    """The threshold of a change, or the margin of none."""
    judged = replace(not_measured(""), verdict=verdict, low=0.002, high=0.003, threshold=0.005, margin=0.01)
    assert shown(judged) == f"+0.20 % to +0.30 %, is {where}"
