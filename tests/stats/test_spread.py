"""The calibrated spread steadies a duel upwards only; the intervals of a look relate to each other as promised."""

import datetime as dt
import math

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.spread import (
    DEPENDENT,
    PERHAPS_DEPENDENT,
    NoiseFloor,
    half_widths,
    halves_differ,
    noise_floor,
    noise_limit,
    prior_conflicts,
    serial_inflation,
    steady_variance,
    unexcluded,
)

DAY = dt.date(2026, 1, 1)


def floor(sd: float, df: int = 60) -> NoiseFloor:
    """A calibration of this launch spread."""
    return NoiseFloor(0.0, sd, df, 10, 0.0, DAY)


def test_small_spread_by_luck_is_raised() -> None:
    """Three launches that agree by luck are judged by the class's spread: (4 * 1 + 2 * 0.25) / 6."""
    variance, df = steady_variance(0.25, 3, prior=floor(1.0), weight=4)
    assert float(variance) == pytest.approx(0.75)
    assert float(df) == 6


def test_a_calibration_that_is_too_small_lends_less_than_its_weight() -> None:
    """Launches of twice the calibrated variance: pooled is 4/3, and lends 4 degrees of freedom times (4/3 / 2)^2."""
    variance, df = steady_variance(2.0, 3, prior=floor(1.0), weight=4)
    assert float(variance) == 2.0
    assert float(df) == pytest.approx(2 + 4 * (2 / 3) ** 2)


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


def test_sessions_widen_both_intervals() -> None:
    """Their variance is added to that of the mean, and more launches do not average it out."""
    widths = half_widths(1e-4, 8, tail=0.005, reported=0.05, sessions=1e-4)
    bare = half_widths(1e-4, 8, tail=0.005, reported=0.05)
    assert float(widths.plain / bare.plain) == pytest.approx(3)
    assert float(widths.repeated / bare.repeated) == pytest.approx(3)


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


def test_noise_floor_of_few_duels_is_students() -> None:
    """Three duels of two launches, 4 % apart at most: t(3 df) times the root of the moment estimate."""
    duels = [[0.019, 0.021], [-0.021, -0.019], [-0.001, 0.001]]
    variance = 2e-6
    between = ((2 * 0.02**2 * 2) / variance - 3) / (3 * 2 / variance)
    found = noise_floor(duels, DAY)
    assert found.effect == pytest.approx(3.182446 * math.sqrt(between), rel=1e-6)
    assert (found.launch_df, found.largest) == (3, 0.02)
    most = (4 * 0.02**2 / variance / float(scipy.stats.chi2.ppf(0.05, 3)) - 1) * variance / 2
    assert noise_limit(duels) == pytest.approx(1.959964 * math.sqrt(most), rel=1e-6)


def test_a_floor_is_rarely_found_where_there_is_none() -> None:
    """Six duels of sessions that do not differ: at most one in twenty finds a floor, and the limit holds it."""
    rng = np.random.default_rng(7)
    duels = [(0.012 * rng.standard_normal((6, 8))).tolist() for _ in range(400)]
    assert float(np.mean([noise_floor(one, DAY).effect > 0 for one in duels])) < 0.05
    assert 0.004 < float(np.median([noise_limit(one) for one in duels])) < 0.03
    assert noise_limit([[0.01, -0.01]] * 3) == 0.0


def test_the_limit_of_a_floor_is_rarely_too_low() -> None:
    """Sessions 0.4 % apart: at most one calibration in twelve by six duels states a limit below twice that."""
    rng = np.random.default_rng(8)
    apart = 0.004 * rng.standard_normal((400, 6, 1)) + 0.007 * rng.standard_normal((400, 6, 20))
    assert float(np.mean([noise_limit(one) < 1.96 * 0.004 for one in apart])) < 0.085


@pytest.mark.parametrize("duels", [[[0.1, 0.2]], [[0.1, 0.2], [0.3]], []])
def test_noise_floor_needs_two_duels_of_two_launches(duels: list[list[float]]) -> None:
    """A floor from less would be a guess."""
    with pytest.raises(UsageError):
        noise_floor(duels, DAY)


@pytest.mark.parametrize("n", [5, 12, 40])
def test_independent_launches_are_rarely_widened(n: int) -> None:
    """About one duel in twenty of independent launches is taken for dependent."""
    inflation, _ = serial_inflation(np.random.default_rng(3).standard_normal((4000, n)))
    assert 0.02 < float((inflation > 1).mean()) < 0.07


def test_a_random_walk_is_judged_as_one() -> None:
    """Where it is plain, as in most of sixteen launches, the mean of n is taken to scatter 2n times as far."""
    inflation, correlation = serial_inflation(np.random.default_rng(4).standard_normal((2000, 16)).cumsum(axis=1))
    assert float((inflation == 32).mean()) > 0.8
    assert float(inflation.max()) == 32
    assert float(correlation.mean()) > 0.5


@pytest.mark.parametrize("n", [40, 100])
def test_what_neighbours_alone_share_is_no_walk(n: int) -> None:
    """However many launches make it sure; a walk below noise that hides most of it still is one."""
    rng = np.random.default_rng(5)
    steps = rng.standard_normal((2000, n + 1))
    neighbours = steps[:, 1:] + 0.2 * steps[:, :-1]
    for chances, most in ((DEPENDENT, 0.07), (PERHAPS_DEPENDENT, 0.1)):
        inflation, correlation = serial_inflation(neighbours, chances)
        assert 0.15 < float(correlation.mean()) < 0.2
        assert float((inflation == 2 * n).mean()) < most
        assert float((inflation > 1.3).mean()) > 0.3
    hidden = rng.standard_normal((2000, n)) + 0.3 * rng.standard_normal((2000, n)).cumsum(axis=1)
    inflation, _ = serial_inflation(hidden, PERHAPS_DEPENDENT)
    assert float((inflation == 2 * n).mean()) > 0.4
    plain, _ = serial_inflation(rng.standard_normal((2000, n)).cumsum(axis=1))
    assert float((plain == 2 * n).mean()) > 0.99


def test_the_correlation_is_von_neumanns() -> None:
    """1 less half of the ratio of squared steps to squared deviations: 3 of a line of four."""
    assert float(serial_inflation([1.0, 2.0, 3.0, 4.0])[1]) == pytest.approx(1 - 3 / (2 * 5))


def test_few_or_equal_launches_show_no_dependence() -> None:
    """Three launches cannot show it, and equal ones have none."""
    assert tuple(map(float, serial_inflation([0.001 * i for i in range(3)]))) == (1.0, 0.0)
    assert tuple(map(float, serial_inflation([0.01] * 12))) == (1.0, 0.0)
    assert [one.shape for one in serial_inflation(np.zeros((5, 3)))] == [(5,), (5,)]


@pytest.mark.parametrize(("n", "walk"), [(4, False), (12, False), (12, True)])
def test_dependence_is_told_at_the_chances_that_are_stated(n: int, walk: bool) -> None:
    """The correlation of independent launches has about the variance (n - 2) / (n^2 - 1)."""
    bound = float(scipy.stats.norm.isf(DEPENDENT[walk])) * math.sqrt((n - 2) / (n * n - 1))
    line, saw = np.arange(n), (-1.0) ** np.arange(n)

    def widened(r: float) -> float:
        weight = scipy.optimize.brentq(lambda weight: float(serial_inflation(line + weight * saw)[1]) - r, 0.0, n)
        return float(serial_inflation(line + weight * saw)[0])

    usual = [(1 + r) / (1 - r) for r in (bound - 1e-4, bound + 1e-4)]
    expected = [usual[0], 2.0 * n] if walk else [1.0, usual[1]]
    assert [widened(bound - 1e-4), widened(bound + 1e-4)] == pytest.approx(expected)


@pytest.mark.parametrize("n", [6, 7, 12])
def test_halves_disagree_by_a_t_test(n: int) -> None:
    """Of as many launches each; one in the middle is of neither."""
    x = np.random.default_rng(9).standard_normal((400, n)) + 2.0 * (np.arange(n) >= n // 2)
    differ = scipy.stats.ttest_ind(x[:, : n // 2], x[:, -(n // 2) :], axis=1).pvalue < 0.01
    assert 40 < differ.sum() < 360
    assert halves_differ(x).tolist() == differ.tolist()


def test_halves_of_independent_launches_rarely_disagree() -> None:
    """One in a hundred does; halves 1 % apart that scatter by 0.5 % often do, of three each seldom, of two never."""
    same = np.random.default_rng(6).standard_normal((8000, 12)) * 0.005
    assert 0.005 < float(halves_differ(same).mean()) < 0.015
    apart = same + np.where(np.arange(12) < 6, 0.0, 0.01)
    assert float(halves_differ(apart).mean()) > 0.6
    assert halves_differ(apart[:, 4:8]).tolist() == [False] * 8000
    assert 0.1 < float(halves_differ(apart[:, 3:9]).mean()) < 0.3


def test_plain_is_students_interval() -> None:
    """The reported half width is that of the textbook interval of the same launches."""
    values = [0.01, 0.012, 0.009, 0.02]
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
    widths = half_widths(float(np.var(values, ddof=1)), 4, tail=0.01, reported=0.05)
    assert float(widths.plain) == pytest.approx((high - low) / 2)


def test_repeated_is_wider_at_an_early_look() -> None:
    """At a look with a tenth of the error, the half width is t(0.0025) / t(0.025) of the plain one."""
    widths = half_widths(1e-4, 8, tail=0.005, reported=0.05)
    assert float(widths.repeated / widths.plain) == pytest.approx(4.029337 / 2.364624, rel=1e-5)


def test_repeated_is_never_narrower_than_plain() -> None:
    """A calibration calmer than the launches lends degrees of freedom, but no interval below the plain one."""
    widths = half_widths(0.0014**2, 3, tail=0.05, reported=0.05, prior=floor(0.001), prior_weight=4)
    assert float(widths.repeated) == float(widths.plain)


def test_dependence_widens_both() -> None:
    """Launches found to be dependent widen the reported and the deciding interval by the root of the factor."""
    once = half_widths(1e-4, 8, tail=0.005, reported=0.05)
    thrice = half_widths(1e-4, 8, tail=0.005, reported=0.05, inflation=9.0)
    assert float(thrice.plain / once.plain) == pytest.approx(3)
    assert float(thrice.repeated / once.repeated) == pytest.approx(3)
    assert float(thrice.sd / once.sd) == pytest.approx(3)


def test_blocks_widen_only_the_deciding_interval() -> None:
    """What the blocks imply holds a decision back without changing what is reported."""
    bare = half_widths(1e-8, 5, tail=0.005, reported=0.05)
    steadied = half_widths(1e-8, 5, tail=0.005, reported=0.05, within=1e-4)
    assert float(steadied.plain) == float(bare.plain)
    assert float(steadied.repeated / bare.repeated) == pytest.approx(100)


def test_nothing_spent_decides_nothing() -> None:
    """A look without error to spend has an infinite deciding interval, the reported one stays finite."""
    widths = half_widths(np.array([1e-4, 0.0]), 5, tail=0.0, reported=0.05)
    assert all(math.isinf(half) for half in widths.repeated)
    assert all(0 < half < 1 for half in widths.plain)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_whole_times_speak_against_no_change_either_way(sign: float) -> None:
    """Where they show more than the margin, or leave room for more than ``most``; the far end is what they leave."""
    scatter = np.array([-1.0, 1.0, -1.0, 1.0])
    half = 3.182446 * math.sqrt(4 / 3) / 2

    def left(mean: float, sd: float, most: float = 0.05) -> float:
        return float(unexcluded(sign * mean + sd * scatter, alpha=0.05, margin=0.01, most=most))

    assert math.isnan(left(0.0, 0.01))
    assert left(0.03, 0.001) == pytest.approx(math.expm1(sign * (0.03 + 0.001 * half)), rel=1e-6)
    assert left(0.02, 0.03) == pytest.approx(math.expm1(sign * (0.02 + 0.03 * half)), rel=1e-6)
    assert math.isnan(left(0.0, 0.002, most=0.0))
