"""What a verdict says of itself."""

import math
from dataclasses import asdict, replace

import pytest

from gemma3n_perf.stats.verdicts import NoiseStatus, Verdict, finite, invalid, not_measured

UNKNOWN = (
    "effect",
    "low",
    "high",
    "bound_low",
    "bound_high",
    "threshold",
    "margin",
    "launch_sd",
    "detectable",
    "detectable_at_budget",
    "needed_s",
    "noise_floor",
)
CODES = {"win": 0, "loss": 1, "no-change": 0, "inconclusive": 3, "not-measured": 4, "invalid": 5}


def test_each_verdict_has_its_exit_code_and_says_whether_it_claims_or_shows() -> None:
    """A win and a loss claim a change; no-change shows something too."""
    assert {one.value: one.exit_code for one in Verdict} == CODES
    assert [one.value for one in Verdict if one.is_claim] == ["win", "loss"]
    assert [one.value for one in Verdict if one.decided] == ["win", "loss", "no-change"]


def test_where_nothing_was_measured_nothing_is_claimed() -> None:
    """No number but the level that intervals have."""
    for made, verdict in ((not_measured("why"), Verdict.NOT_MEASURED), (invalid("why"), Verdict.INVALID)):
        assert asdict(made) == dict.fromkeys(UNKNOWN) | {
            "verdict": verdict,
            "reason": "why",
            "level": 0.95,
            "launches": 0,
            "measured_s": 0.0,
            "noise": NoiseStatus.MISSING,
            "cautions": (),
        }


@pytest.mark.parametrize(
    ("verdict", "margin", "word"),
    [
        (Verdict.NO_CHANGE, 0.03, "no change of 3 %"),
        (Verdict.NO_CHANGE, 0.0125, "no change of 1.25 %"),
        (Verdict.NO_CHANGE, 0.01, "no-change"),
        (Verdict.NO_CHANGE, None, "no-change"),
        (Verdict.LOSS, 0.03, "loss"),
    ],
)
def test_no_change_by_a_margin_wider_than_usual_names_it(verdict: Verdict, margin: float | None, word: str) -> None:
    """Else it would be taken for more than it is."""
    assert replace(not_measured(""), verdict=verdict, margin=margin).word == word


def test_an_end_without_bound_is_unknown_in_a_record() -> None:
    """JSON has no infinity."""
    assert [finite(one) for one in (0.0, -0.5, math.inf, -math.inf, math.nan, None)] == [0.0, -0.5, *[None] * 4]
