"""The estimator of steps in use is the best of those compared on a core of two speeds, and not far off on good days."""

import io
from functools import cache

import numpy as np
import pytest

from studies.step_estimators import ESTIMATORS, NOISES, main, scatter, step_noise

USED = "aligned (used)"


@cache
def measured(kind: str) -> dict[str, float]:
    """Scatter of all estimators over 300 launches."""
    return dict(scatter(kind, 28, 300, 1))


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("other", [name for name in ESTIMATORS if name != USED])
def test_the_one_in_use_is_best_on_bad_days_and_near_on_good_ones(kind: str, other: str) -> None:
    """Where a core has two speeds no other scatters less; elsewhere none by more than a third."""
    found = measured(kind)
    assert found[USED] < (1.0 if "two speeds" in kind else 1.4) * found[other]


def test_unknown_noise_is_refused() -> None:
    """A misspelt kind is an error."""
    with pytest.raises(ValueError, match="none of"):
        step_noise("stall", 4, np.random.default_rng(0))


def test_the_command_prints_every_estimator() -> None:
    """One row for each estimator and one column for each noise."""
    out = io.StringIO()
    assert main(["--launches", "3"], out) == 0
    rows = out.getvalue().splitlines()
    assert len(rows) == len(ESTIMATORS) + 2
    assert all(row.count("|") == len(NOISES) + 2 for row in rows)
