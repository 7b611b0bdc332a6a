"""Promised sensitivity is the one that simulated launches have."""

import math

import numpy as np
import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.detectable import Sensitivity, plan
from gemma3n_perf.stats.sequential import critical


@pytest.mark.parametrize("launches", [4, 8, 20])
def test_detectable_effect_is_shown_four_times_in_five(launches: int) -> None:
    """An effect of the stated size clears the threshold in 80 % of simulated duels."""
    effect = Sensitivity(0.007, 0.02).effect(launches, threshold=0.005)
    x = effect + np.random.default_rng(1).normal(0, 0.007, (40_000, launches))
    low = x.mean(axis=1) - critical(0.02, launches - 1) * x.std(axis=1, ddof=1) / math.sqrt(launches)
    assert float((low > 0.005).mean()) == pytest.approx(0.8, abs=0.01)


def test_launches_for_is_the_fewest_that_suffice() -> None:
    """One launch less would not detect the effect."""
    sensitivity = Sensitivity(0.007, 0.02)
    n = sensitivity.launches(0.01, threshold=0.005)
    assert n is not None
    assert sensitivity.effect(n - 1, threshold=0.005) > 0.01 >= sensitivity.effect(n, threshold=0.005)


def test_what_cannot_be_told_needs_no_number_of_launches() -> None:
    """No number of launches shows an effect below the threshold, and two are the least that show anything."""
    assert Sensitivity(0.007).launches(0.004, threshold=0.005) is None
    assert Sensitivity(1e-6).launches(0.5, threshold=0.005) == 2


def test_an_effect_on_a_bound_is_never_decided() -> None:
    """Without any scatter two launches tell a change beyond the threshold, and none within the margin."""
    found = [Sensitivity(0.0).launches_to_decide(size, threshold=0.01, margin=0.01) for size in (0.009, 0.01, 0.011)]
    assert found == [2, None, 2]


def test_plan_follows_the_variance_components() -> None:
    """Costly starts ask for longer launches, noisy launches for more of them (Kalibera & Jones 2013)."""
    cheap = plan(180, pair_s=0.25, start_s=1, launch_sd=0.004, pair_sd=0.03)
    costly = plan(180, pair_s=0.25, start_s=8, launch_sd=0.004, pair_sd=0.03)
    noisy = plan(180, pair_s=0.25, start_s=8, launch_sd=0.012, pair_sd=0.03)
    assert cheap.pairs < costly.pairs
    assert noisy.launches > costly.launches
    assert costly.launches * (8 + costly.launch_s) <= 180
    assert costly.sd == pytest.approx(math.sqrt(0.004**2 + 0.03**2 / costly.pairs))


def test_plan_is_the_best_of_all_divisions() -> None:
    """No other number of launches within the budget detects a smaller effect."""
    best = plan(90, pair_s=0.25, start_s=3, launch_sd=0.004, pair_sd=0.03)
    for launches in range(3, 20):
        pairs = int((90 / launches - 3) / 0.25)
        if pairs >= 6:
            other = Sensitivity(math.sqrt(0.004**2 + 0.03**2 / pairs)).effect(launches, threshold=0.005)
            assert best.detectable <= other + 1e-12


def test_short_budget_names_the_shortest_that_works() -> None:
    """Refused before measuring, and the budget it names is accepted."""
    with pytest.raises(UsageError, match="too short") as refused:
        plan(5, pair_s=0.25, start_s=1, launch_sd=0.004, pair_sd=0.03)
    assert refused.value.remedy == "pass --budget 8"
    assert plan(8, pair_s=0.25, start_s=1, launch_sd=0.004, pair_sd=0.03).launches == 3
