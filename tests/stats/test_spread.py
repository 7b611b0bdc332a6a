"""The calibrated spread steadies a duel upwards only, and is dropped when the launches contradict it."""

import datetime as dt
import math

import numpy as np
import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.spread import NoiseFloor, noise_floor, prior_conflicts, serial_inflation, steady_variance

DAY = dt.date(2026, 1, 1)


def floor(sd: float, df: int = 60) -> NoiseFloor:
    """A calibration of this launch spread."""
    return NoiseFloor(0.0, sd, df, 10, 0.0, DAY)


def test_small_spread_by_luck_is_raised() -> None:
    """Three launches that agree by luck are judged by the class's spread: (4 * 1 + 2 * 0.25) / 6."""
    variance, df = steady_variance(0.25, 3, prior=floor(1.0), weight=4)
    assert float(variance) == pytest.approx(0.75)
    assert float(df) == 6


def test_large_spread_is_never_lowered() -> None:
    """Launches noisier than the calibration keep their own variance."""
    variance, _ = steady_variance(2.0, 4, prior=floor(1.0), weight=4)
    assert float(variance) == 2.0


@pytest.mark.parametrize("own", [1e-3, 40.0])
def test_contradicted_calibration_is_not_used(own: float) -> None:
    """Launches far quieter or noisier than calibrated stand on their own, with their own degrees of freedom."""
    assert bool(prior_conflicts(np.asarray(own), 8, floor(1.0)))
    variance, df = steady_variance(own, 8, prior=floor(1.0), weight=4)
    assert (float(variance), float(df)) == (own, 7)


def test_quiet_launches_contradict_only_when_there_are_enough() -> None:
    """Three launches far quieter than calibrated are luck; eight are evidence."""
    assert not bool(prior_conflicts(np.asarray(1e-6), 3, floor(1.0)))
    assert not bool(prior_conflicts(np.asarray(1e-6), 7, floor(1.0)))
    assert bool(prior_conflicts(np.asarray(1e-6), 8, floor(1.0)))


def test_blocks_set_a_floor() -> None:
    """Launches cannot scatter less than their own blocks imply."""
    variance, df = steady_variance(0.1, 3, prior=None, weight=4, within=0.5)
    assert (float(variance), float(df)) == (0.5, 2)


def test_a_short_calibration_weighs_no_more_than_it_is() -> None:
    """A calibration with 2 degrees of freedom counts as 2, whatever the policy grants."""
    _, df = steady_variance(1.0, 5, prior=floor(1.0, df=2), weight=4)
    assert float(df) == 6


def test_noise_floor_of_equal_sessions_is_zero() -> None:
    """Where sessions differ no more than their launches explain, the floor is zero and the spread is pooled."""
    rng = np.random.default_rng(1)
    duels = [rng.normal(0, 0.007, 40).tolist() for _ in range(40)]
    found = noise_floor(duels, DAY)
    assert found.launch_sd == pytest.approx(0.007, rel=0.05)
    assert found.launch_df == 40 * 39
    assert found.effect < 0.0015
    assert found.largest == pytest.approx(max(abs(float(np.mean(d))) for d in duels))


def test_noise_floor_finds_sessions_that_differ() -> None:
    """Sessions 0.4 % apart give a floor of about twice that, however many launches each has."""
    rng = np.random.default_rng(2)
    duels = [(rng.normal(0, 0.004) + rng.normal(0, 0.007, 40)).tolist() for _ in range(200)]
    assert noise_floor(duels, DAY).effect == pytest.approx(1.97 * 0.004, rel=0.15)


@pytest.mark.parametrize("duels", [[[0.1, 0.2]], [[0.1, 0.2], [0.3]], []])
def test_noise_floor_needs_two_duels_of_two_launches(duels: list[list[float]]) -> None:
    """A floor from less would be a guess."""
    with pytest.raises(UsageError):
        noise_floor(duels, DAY)


def test_independent_launches_are_rarely_widened() -> None:
    """About one duel in twenty of independent launches is taken for dependent."""
    inflation, _ = serial_inflation(np.random.default_rng(3).standard_normal((4000, 12)))
    assert 0.02 < float((inflation > 1).mean()) < 0.07


def test_drifting_launches_are_widened() -> None:
    """A steady drift over sixteen launches is noticed, and widens the interval."""
    inflation, correlation = serial_inflation([0.001 * i for i in range(16)])
    assert float(correlation) > 0.6
    assert float(inflation) > 4


def test_few_or_equal_launches_show_no_dependence() -> None:
    """Seven launches cannot show it, and equal ones have none."""
    assert tuple(map(float, serial_inflation([0.001 * i for i in range(7)]))) == (1.0, 0.0)
    assert float(serial_inflation([0.01] * 12)[0]) == 1.0
    assert math.isfinite(float(serial_inflation([0.01] * 12)[1]))
