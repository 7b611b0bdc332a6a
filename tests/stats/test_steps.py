"""The shift that lays the steps of one arm over the other's, on hosts whose cores have two speeds."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from gemma3n_perf.errors import InvalidError
from gemma3n_perf.stats.estimates import LaunchEstimate, estimate_launch, relative_change
from gemma3n_perf.stats.steps import by_shape, differ_in_shape, estimate, estimate_steps, slower_at_times
from tests.stats.host import Arms, steps


def by_block(arms: Arms) -> float:
    """What the blocks' means give."""
    return estimate_launch(*([statistics.fmean(block) for block in arm] for arm in arms), seconds=1).log_ratio


def test_exact_ratio_of_noiseless_steps() -> None:
    """A candidate that takes 0.8 of the time has 1.25 of the throughput, with no error."""
    found = estimate_steps([[0.02] * 4] * 6, [[0.016] * 4] * 6, seconds=3.0, session=1)
    assert relative_change(found.log_ratio) == pytest.approx(0.25, abs=1e-6)
    assert found.whole == pytest.approx(math.log(1.25))
    assert found.se == pytest.approx(0.0, abs=1e-9)
    assert (found.seconds, found.session) == (3.0, 1)


def test_swapping_the_arms_flips_the_sign() -> None:
    """The estimate treats both arms alike."""
    base, cand = steps(np.random.default_rng(3), 40, 0.03)
    there, back = estimate_steps(base, cand, seconds=1), estimate_steps(cand, base, seconds=1)
    assert there.log_ratio == pytest.approx(-back.log_ratio, abs=1e-6)
    assert there.se == pytest.approx(back.se, rel=1e-3)
    assert there.whole == pytest.approx(-(back.whole or 0.0))


@pytest.mark.parametrize("faster", [-0.02, 0.0, 0.5])
def test_the_two_speeds_of_a_core_hardly_move_the_launch(faster: float) -> None:
    """Blocks, and even the medians of steps, follow the share of slow steps that each arm happened to meet."""
    rng = np.random.default_rng(11)
    arms = [steps(rng, 60, faster) for _ in range(60)]
    found = [estimate_steps(*one, seconds=1) for one in arms]
    aligned = [one.log_ratio for one in found]
    assert statistics.fmean(aligned) == pytest.approx(math.log1p(faster), abs=0.003)
    assert statistics.stdev(aligned) < 0.65 * statistics.stdev(map(by_block, arms))
    assert statistics.stdev(aligned) < 0.75 * statistics.stdev(one.whole or 0.0 for one in found)


def test_stalls_of_single_steps_hardly_move_the_launch() -> None:
    """One slow step spoils the mean of its block, and here only itself."""
    rng = np.random.default_rng(12)
    arms = [steps(rng, 20, slow=0.0, stalls=0.1, count=5) for _ in range(100)]
    aligned = [estimate_steps(*one, seconds=1).log_ratio for one in arms]
    assert statistics.fmean(aligned) == pytest.approx(0.0, abs=0.002)
    assert statistics.stdev(aligned) < 0.65 * statistics.stdev(map(by_block, arms))


def test_two_speeds_that_meet_by_chance_are_not_taken_for_a_change() -> None:
    """Of few pairs, as many may have met two speeds as one: the shift stays where most differences lie around."""
    rng = np.random.default_rng(16)
    found = [estimate_steps(*steps(rng, 20), seconds=1).log_ratio for _ in range(150)]
    assert max(map(abs, found)) < 0.05


@pytest.mark.parametrize("slow", [0.0, 0.5])
@pytest.mark.parametrize("pairs", [20, 90])
def test_the_error_matches_the_scatter_of_launches(pairs: int, slow: float) -> None:
    """What one launch says of its own error is what many such launches scatter by."""
    rng = np.random.default_rng(13)
    found = [estimate_steps(*steps(rng, pairs, slow=slow), seconds=1) for _ in range(150)]
    scatter = statistics.stdev(one.log_ratio for one in found)
    assert statistics.median(one.se or 0.0 for one in found) == pytest.approx(scatter, rel=0.3)
    whole = statistics.stdev(one.whole or 0.0 for one in found)
    assert statistics.median(one.whole_se or 0.0 for one in found) == pytest.approx(whole, rel=0.3)


@pytest.mark.parametrize(("pairs", "groups"), [(3, 3), (40, 20)])
def test_the_error_is_the_jackknifes(pairs: int, groups: int) -> None:
    """Where steps hardly differ, the shift is the mean of all differences side by side: its derivatives by the weights
    of pairs make the error. With many pairs, neighbours are taken together in twenty groups."""
    base, cand = np.exp(1e-5 * np.random.default_rng(18).standard_normal((2, pairs, 1)))
    difference, number = np.log(base) - np.log(cand).T, np.arange(pairs)
    near = np.abs(np.subtract.outer(number, number)) <= 1
    group = number * groups // pairs

    def shift(weights: NDArray[np.float64]) -> float:
        joint = np.where(np.equal.outer(group, group), weights[:, None], np.outer(weights, weights)) * near
        return float((joint * difference).sum() / joint.sum())

    derivatives = [
        (shift(1 + 1e-4 * (group == one)) - shift(1 - 1e-4 * (group == one))) / 2e-4 for one in range(groups)
    ]
    found = estimate_steps(base.tolist(), cand.tolist(), seconds=1)
    assert found.log_ratio == pytest.approx(shift(np.ones(pairs)), abs=2e-9)
    few = groups / (groups - 1)
    assert found.se == pytest.approx(math.sqrt(few * sum(one**2 for one in derivatives)), rel=0.01)
    gaps = base - cand
    shares = (gaps - gaps.mean()).reshape(groups, -1).sum(axis=1) / pairs
    assert found.whole_se == pytest.approx(math.sqrt(few * float(np.square(shares).sum())), rel=0.01)


def now_and_then(rng: np.random.Generator, arms: Arms, share: float) -> Arms:
    """A candidate of which a share of the steps takes half as long again."""
    cand: NDArray[np.float64] = np.array(arms[1])
    return arms[0], (cand * (1 + 0.5 * (rng.random(cand.shape) < share))).tolist()


def test_an_arm_that_is_slow_now_and_then_is_not_aligned_away() -> None:
    """A third of the candidate's steps take half as long again: its mode is where it was, and all of it is slower."""
    rng = np.random.default_rng(14)
    found = [estimate_steps(*now_and_then(rng, steps(rng, 60, slow=0.1), 0.33), seconds=1) for _ in range(10)]
    assert abs(statistics.fmean(one.log_ratio for one in found)) < 0.02
    assert differ_in_shape(found)
    judged = by_shape(found)
    assert [one.log_ratio for one in judged] == [one.whole for one in found]
    assert statistics.fmean(one.log_ratio for one in judged) == pytest.approx(-math.log(1 + 0.33 * 0.5), abs=0.02)
    assert [one.se for one in judged] == [one.whole_se for one in found]


def test_arms_of_one_shape_are_aligned() -> None:
    """Whatever the host does to both, in all but about one of a hundred duels."""
    rng = np.random.default_rng(15)
    duels = [[estimate_steps(*steps(rng, 30, 0.02), seconds=1) for _ in range(8)] for _ in range(60)]
    assert sum(map(differ_in_shape, duels)) <= 3
    plain = next(one for one in duels if not differ_in_shape(one))
    assert by_shape(plain) == tuple(plain)


def test_gaps_that_agree_by_chance_are_not_taken_for_a_shape() -> None:
    """Three launches whose gaps are alike, and less than their own blocks leave open, tell of nothing."""
    alike = [LaunchEstimate(0.0, 1.0, 0.01, whole=0.03 + 0.0001 * i, whole_se=0.04, aligned=True) for i in range(3)]
    assert not differ_in_shape(alike)
    assert differ_in_shape([replace(one, whole_se=0.001) for one in alike])


def test_a_gap_that_makes_no_difference_is_none() -> None:
    """Launches without scatter tell of less than a thousandth, and two launches or blocks alone of nothing."""
    tiny = [LaunchEstimate(0.02, 1.0, 0.001, whole=0.0205, aligned=True)] * 5
    assert not differ_in_shape(tiny)
    assert differ_in_shape([LaunchEstimate(0.02, 1.0, 0.001, whole=0.03, aligned=True)] * 3)
    assert not differ_in_shape([LaunchEstimate(0.02, 1.0, 0.001, whole=0.03, aligned=True)] * 2)
    assert not differ_in_shape([LaunchEstimate(0.02, 1.0, 0.001, whole=0.03)] * 5)
    mixed = [replace(tiny[0], whole=0.03)] * 5 + [LaunchEstimate(0.02, 1.0, 0.001, whole=0.03)]
    assert differ_in_shape(mixed[:5])
    assert not differ_in_shape(mixed)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("chance", "differ"), [(0.003, False), (0.001, True)])
def test_a_shape_is_told_at_two_in_a_thousand(chance: float, differ: bool, sign: int) -> None:
    """By either arm: so far, beyond the thousandth, gaps that scatter by 1 % lie from 0 with that chance."""
    apart = 0.001 + float(scipy.stats.t.isf(chance / 2, 2)) * 0.01 / math.sqrt(3)
    gaps = [sign * (apart + offset) for offset in (-0.01, 0.0, 0.01)]
    assert differ_in_shape([LaunchEstimate(0.0, 1.0, whole=gap, aligned=True) for gap in gaps]) is differ


@pytest.mark.parametrize(
    ("base", "cand"),
    [
        ([[0.02, 0.02]], [[0.02, 0.02]]),
        ([[0.02, 0.02]] * 3, [[0.02, 0.02]] * 2),
        ([[0.02, 0.02]] * 2, [[0.02, 0.02], [0.02]]),
        ([[], []], [[], []]),
    ],
)
def test_steps_that_do_not_match_are_refused(base: list[list[float]], cand: list[list[float]]) -> None:
    """Fewer than two pairs, an arm with fewer blocks, a block with fewer steps, and none at all."""
    with pytest.raises(InvalidError, match="as many blocks of each arm"):
        estimate_steps(base, cand, seconds=1)
    with pytest.raises(InvalidError, match="candidate time of"):
        estimate_steps([[0.02]] * 2, [[0.02], [math.nan]], seconds=1)


def test_an_estimate_is_made_of_steps_only_where_both_arms_told_them() -> None:
    """A worker of an older commit tells blocks."""
    base, cand = steps(np.random.default_rng(5), 8)
    blocks = [statistics.fmean(b) for b in base], [statistics.fmean(c) for c in cand]
    assert estimate(*blocks, steps=(base, cand), seconds=1) == estimate_steps(base, cand, seconds=1)
    for recorded in ((), (base, ()), ((), ())):
        found = estimate(*blocks, steps=recorded, seconds=1)
        assert not found.aligned
        assert found.whole == pytest.approx(math.log(sum(blocks[0]) / sum(blocks[1])))
    assert estimate(blocks[0][1:], blocks[1], seconds=1).whole is None
    with pytest.raises(InvalidError, match="1 baseline and 1 candidate blocks"):
        estimate([0.02], [0.02], seconds=1)


def test_where_no_difference_is_near_the_shift_its_error_is_not_known() -> None:
    """It lies halfway between those of few pairs, which lie far apart."""
    assert estimate_steps([[1.0], [math.e]], [[1.0], [1.0]], seconds=1).se == math.inf


def test_paired_blocks_are_compared_side_by_side() -> None:
    """A drift that both arms share cancels, a stall moves nothing, and swapping the arms flips the sign."""
    rng = np.random.default_rng(12)
    drift = np.exp(0.3 * rng.standard_normal(60).cumsum())
    base, cand = 0.02 * drift, 0.02 / 1.02 * drift
    base[10] *= 3
    there = estimate(base.tolist(), cand.tolist(), seconds=1)
    back = estimate(cand.tolist(), base.tolist(), seconds=1)
    assert relative_change(there.log_ratio) == pytest.approx(0.02, abs=0.01)
    assert there.log_ratio == pytest.approx(-back.log_ratio, abs=1e-12)
    assert there.se == pytest.approx(back.se)


def test_the_error_of_paired_blocks_is_how_far_they_scatter() -> None:
    """Within a tenth, of independent blocks and of blocks whose speed both arms share."""
    rng = np.random.default_rng(13)
    for shared in (0.0, 0.05):
        found = []
        for _ in range(400):
            speed = shared * rng.standard_normal(80)
            base, cand = (0.02 * np.exp(speed + 0.03 * rng.standard_normal(80)) for _ in range(2))
            found.append(estimate(base.tolist(), cand.tolist(), seconds=1))
        scatter = float(np.std([one.log_ratio for one in found]))
        stated = math.sqrt(float(np.mean([(one.se or 0.0) ** 2 for one in found])))
        assert stated == pytest.approx(scatter, rel=0.15)


def test_a_candidate_that_is_slow_now_and_then_is_slower_at_times() -> None:
    """Where whole times show less than half of what typical tokens gain, or of a large gain a tenth less, in launches
    enough; not by chance."""
    rng = np.random.default_rng(3)

    def launches(gain: float, whole: float, n: int = 6) -> list[LaunchEstimate]:
        return [LaunchEstimate(gain, 1.0, 0.001, whole=whole + rng.normal(0, 0.004)) for _ in range(n)]

    assert slower_at_times(launches(0.37, -0.13))
    assert slower_at_times(launches(0.05, 0.01))
    assert slower_at_times(launches(0.376, 0.302))  # an unfused step at one position in 16, on an EPYC
    assert not slower_at_times(launches(0.376, 0.35))
    assert slower_at_times(launches(0.08, 0.05))
    assert not slower_at_times(launches(0.08, 0.065))
    assert not slower_at_times(launches(2.28, 2.12))  # stalls of an H200's host
    assert not slower_at_times(launches(0.05, 0.04))
    assert not slower_at_times(launches(0.05, 0.01, n=2))
    assert not slower_at_times(launches(-0.05, -0.2))
    assert not slower_at_times([LaunchEstimate(0.05, 1.0, 0.001)] * 6)
    assert not slower_at_times([])
    chance = [
        slower_at_times([replace(one, whole=rng.normal(0.02, 0.05)) for one in launches(0.02, 0)]) for _ in range(300)
    ]
    assert sum(chance) <= 6
