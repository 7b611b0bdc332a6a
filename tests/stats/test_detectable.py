"""Promised sensitivity is the one that simulated launches have."""

import math

import numpy as np
import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.detectable import launches_for, plan, power, smallest_detectable
from gemma3n_perf.stats.sequential import critical


@pytest.mark.parametrize("launches", [4, 8, 20])
def test_detectable_effect_is_shown_four_times_in_five(launches: int) -> None:
    """An effect of the stated size clears the threshold in 80 % of simulated duels, as `power` says."""
    effect = smallest_detectable(threshold=0.005, sd=0.007, launches=launches, tail=0.02)
    assert effect is not None
    x = effect + np.random.default_rng(1).normal(0, 0.007, (40_000, launches))
    low = x.mean(axis=1) - critical(0.02, launches - 1) * x.std(axis=1, ddof=1) / math.sqrt(launches)
    shown = float((low > 0.005).mean())
    assert shown == pytest.approx(0.8, abs=0.01)
    assert power(effect, threshold=0.005, sd=0.007, launches=launches, tail=0.02) == pytest.approx(shown, abs=0.01)


def test_launches_for_is_the_fewest_that_suffice() -> None:
    """One launch less would not detect the effect."""
    n = launches_for(0.01, threshold=0.005, sd=0.007, tail=0.02)
    assert n is not None
    seen = [smallest_detectable(threshold=0.005, sd=0.007, launches=k, tail=0.02) for k in (n - 1, n)]
    assert seen[0] is not None
    assert seen[1] is not None
    assert seen[0] > 0.01 >= seen[1]


def test_what_cannot_be_told_needs_no_number_of_launches() -> None:
    """No number of launches shows an effect below the threshold, and two are the least that show anything."""
    assert launches_for(0.004, threshold=0.005, sd=0.007) is None
    assert launches_for(0.5, threshold=0.005, sd=1e-6) == 2
    assert smallest_detectable(threshold=0.005, sd=0.007, launches=1) is None
    assert power(0.1, threshold=0.005, sd=0.007, launches=1, tail=0.05) == 0.0


def test_certain_effects_have_power_one() -> None:
    """A shift of hundreds of standard errors does not overflow."""
    assert power(1.0, threshold=0.005, sd=0.001, launches=10, tail=0.02) == 1.0


def test_plan_follows_the_variance_components() -> None:
    """Costly starts ask for longer launches, noisy launches for more of them (Kalibera & Jones 2013)."""
    cheap = plan(180, pair_s=0.25, start_s=1, launch_sd=0.004, pair_sd=0.03)
    costly = plan(180, pair_s=0.25, start_s=8, launch_sd=0.004, pair_sd=0.03)
    noisy = plan(180, pair_s=0.25, start_s=8, launch_sd=0.012, pair_sd=0.03)
    assert cheap.pairs < costly.pairs
    assert noisy.launches > costly.launches
    assert costly.total_s <= 180
    assert costly.sd == pytest.approx(math.sqrt(0.004**2 + 0.03**2 / costly.pairs))


def test_plan_is_the_best_of_all_divisions() -> None:
    """No other number of launches within the budget detects a smaller effect."""
    best = plan(90, pair_s=0.25, start_s=3, launch_sd=0.004, pair_sd=0.03)
    for launches in range(3, 20):
        pairs = int((90 / launches - 3) / 0.25)
        if pairs >= 6:
            other = smallest_detectable(threshold=0.005, sd=math.sqrt(0.004**2 + 0.03**2 / pairs), launches=launches)
            assert best.detectable is not None
            assert other is not None
            assert best.detectable <= other + 1e-12


def test_short_budget_names_the_shortest_that_works() -> None:
    """Refused before measuring, and the budget it names is accepted."""
    with pytest.raises(UsageError, match="too short") as refused:
        plan(5, pair_s=0.25, start_s=1, launch_sd=0.004, pair_sd=0.03)
    assert refused.value.remedy == "pass --budget 8"
    assert plan(8, pair_s=0.25, start_s=1, launch_sd=0.004, pair_sd=0.03).launches == 3
