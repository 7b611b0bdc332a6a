"""The launch estimator in use is the best of those compared on bad days and near the best on good ones."""

import io
from functools import cache

import numpy as np
import pytest

from studies.estimators import ESTIMATORS, NOISES, block_noise, main, scatter

USED = "40 % trimmed, side by side (used)"


@cache
def measured(kind: str) -> dict[str, float]:
    """Scatter of all estimators over 500 launches."""
    return dict(scatter(kind, 20, 500, 1))


@pytest.mark.parametrize("kind", NOISES)
def test_used_estimator_is_never_far_from_the_best_mean(kind: str) -> None:
    """On every noise it scatters at most 15 % more than the mean of pairs, and on contention far less."""
    found = measured(kind)
    assert found[USED] < 1.15 * found["mean of pairs"]
    if kind in ("spikes", "bursts"):
        assert found[USED] < 0.4 * found["mean of pairs"]


@pytest.mark.parametrize("other", ["ratio of medians", "median of pairs", "Hodges-Lehmann, pairs"])
def test_used_estimator_beats_the_robust_rivals_overall(other: str) -> None:
    """Over all kinds of noise its scatter is the smaller one (geometric mean)."""
    ratios = [measured(kind)[USED] / measured(kind)[other] for kind in NOISES]
    assert np.exp(np.mean(np.log(ratios))) < 1.0


def test_unknown_noise_is_refused() -> None:
    """A misspelt kind is an error."""
    with pytest.raises(ValueError, match="none of"):
        block_noise("spike", 4, np.random.default_rng(0))


def test_command_prints_every_estimator() -> None:
    """One row for each estimator and one column for each noise."""
    out = io.StringIO()
    assert main(["--launches", "3"], out) == 0
    rows = out.getvalue().splitlines()
    assert len(rows) == len(ESTIMATORS) + 2
    assert all(row.count("|") == len(NOISES) + 2 for row in rows)
