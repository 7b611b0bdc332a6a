"""Launch estimates are robust and honest about their own error; intervals cover what they claim."""

import math

import numpy as np
import pytest
import scipy.stats

from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.stats.estimates import LaunchEstimate, estimate_launch, relative_change, throughput_interval
from gemma3n_perf.stats.steps import estimate, estimate_steps


def blocks(rng: np.random.Generator, n: int, faster: float = 0.0) -> tuple[list[float], list[float]]:
    """Blocks of both arms at 20 ms a token, 2 % apart, the candidate ``faster`` by a fraction."""
    base = 0.02 * np.exp(rng.normal(0, 0.02, n))
    cand = 0.02 / (1 + faster) * np.exp(rng.normal(0, 0.02, n))
    return base.tolist(), cand.tolist()


def test_exact_shift_of_noiseless_blocks() -> None:
    """A candidate that takes 0.8 of the time has 1.25 of the throughput, with no error."""
    found = estimate_launch([0.02] * 5, [0.016] * 7, seconds=3.0)
    assert relative_change(found.log_ratio) == pytest.approx(0.25)
    assert found.se == 0.0
    assert found.seconds == 3.0


def test_swapping_the_arms_flips_the_sign() -> None:
    """The estimate treats both arms alike."""
    base, cand = blocks(np.random.default_rng(3), 15, 0.03)
    there, back = estimate_launch(base, cand, seconds=1), estimate_launch(cand, base, seconds=1)
    assert there.log_ratio == pytest.approx(-back.log_ratio, abs=1e-12)
    assert there.se == pytest.approx(back.se)


def test_contended_blocks_hardly_move_the_launch() -> None:
    """Three of twenty candidate blocks at twice the time move the mean by 10 %, the estimate by under 1 %."""
    base, cand = blocks(np.random.default_rng(4), 20)
    spoiled = [*cand[:17], *(2 * c for c in cand[17:])]
    clean = estimate_launch(base, cand, seconds=1).log_ratio
    assert abs(math.log(np.mean(spoiled) / np.mean(cand))) > 0.1
    assert abs(estimate_launch(base, spoiled, seconds=1).log_ratio - clean) < 0.01


@pytest.mark.parametrize("shared", [0.0, 0.05])
@pytest.mark.parametrize("n", [6, 24, 120])
def test_block_error_matches_the_scatter_of_launches(n: int, shared: float) -> None:
    """The standard error read off the blocks is what the estimates of many such launches scatter by, also where both
    blocks of a pair are slow together: that scatters the blocks and not the estimates."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(800 if n < 100 else 300):
        base, cand = blocks(rng, n)
        slow = np.exp(rng.normal(0, shared, n))
        both = [(np.array(times) * slow).tolist() for times in (base, cand)]
        found.append(estimate_launch(both[0], both[1], seconds=1))
    scatter = float(np.std([f.log_ratio for f in found]))
    claimed = math.sqrt(float(np.mean([f.se**2 for f in found if f.se is not None])))
    assert claimed == pytest.approx(scatter, rel=0.12)


def test_the_error_is_read_off_mann_whitneys_interval() -> None:
    """The third of twelve differences from each end, 0.028 apart: 3.5 of sqrt(8) from the middle."""
    base, cand = (np.exp(logs).tolist() for logs in ([0.0, 0.01, 0.02, 0.03], [0.0, 0.001, 0.002]))
    assert estimate_launch(base, cand, seconds=1).se == pytest.approx(0.014 * math.sqrt(8) / 3.5)


def test_what_pairs_share_is_spearmans_correlation() -> None:
    """Equal blocks share their rank; the same blocks in other pairs differ in their error by that alone."""
    base, cand = [20.0, 20.0, 21.0, 22.0, 22.0, 23.0], [20.0, 21.0, 20.0, 22.0, 23.0, 22.0]
    pairings = (cand, [*cand[2:], *cand[:2]])
    errors = [estimate_launch(base, one, seconds=1).se or 0.0 for one in pairings]
    left = [1 - float(scipy.stats.spearmanr(base, one).statistic) for one in pairings]
    assert errors[0] / errors[1] == pytest.approx(math.sqrt(left[0] / left[1]))


@pytest.mark.parametrize("bad", [0.0, -0.02, math.nan, math.inf])
def test_impossible_block_time_is_named(bad: float) -> None:
    """A time that is not positive and finite never enters an estimate."""
    with pytest.raises(InvalidError, match=r"candidate time of"):
        estimate_launch([0.02, 0.02], [0.02, bad], seconds=1)


def test_too_few_blocks_are_refused() -> None:
    """One block of an arm says nothing about the others."""
    with pytest.raises(InvalidError, match="3 baseline and 1 candidate"):
        estimate_launch([0.02, 0.02, 0.02], [0.02], seconds=1)


@pytest.mark.parametrize(("ratio", "seconds"), [(math.nan, 1.0), (0.0, -1.0), (0.0, math.inf)])
def test_launch_of_impossible_numbers_is_refused(ratio: float, seconds: float) -> None:
    """A launch estimate holds finite numbers only, wherever it came from."""
    with pytest.raises(InvalidError):
        LaunchEstimate(ratio, seconds)


def test_a_change_beyond_what_numbers_hold_is_infinite() -> None:
    """And no error."""
    assert relative_change(700.0) == relative_change(1e9) == math.inf
    assert relative_change(math.nextafter(700.0, 0.0)) < math.inf
    assert (relative_change(0.0), relative_change(-1e9)) == (0.0, -1.0)


def test_a_launch_is_of_the_first_session_unless_said() -> None:
    """And knows nothing that it is not given."""
    assert LaunchEstimate(0.0, 0.0) == LaunchEstimate(0.0, 0.0, None, 0, None, None, False)
    assert [make([0.02] * 2, [0.02] * 2, seconds=1).session for make in (estimate_launch, estimate)] == [0, 0]
    assert estimate_steps([[0.02]] * 2, [[0.02]] * 2, seconds=1).session == 0


@pytest.mark.parametrize("n", [4, 5, 9])
def test_throughput_interval_covers(n: int) -> None:
    """The interval around 1 / median holds the true throughput 93 to 99 times in a hundred."""
    rng = np.random.default_rng(6)
    runs = 0.02 * np.exp(rng.normal(0, 0.03, (1500, n)))
    found = [throughput_interval(row.tolist()) for row in runs]
    covered = float(np.mean([low <= 50.0 <= high for low, high in found]))
    assert 0.93 <= covered <= 0.99


def test_throughput_is_that_of_the_median_run() -> None:
    """One contended run out of five does not move the estimate."""
    assert math.prod(throughput_interval([0.02, 0.02, 0.02, 0.02, 0.05])) == pytest.approx(50.0**2)
    assert throughput_interval([0.02]) == (0.0, math.inf)
    with pytest.raises(UsageError, match="no runs"):
        throughput_interval([])


def test_throughput_interval_is_students_on_logs_widened_for_the_median() -> None:
    """Logs 0, 1 and 2 have sd 1: half width sqrt(pi / 2) * 4.3027 / sqrt(3) around that of the median."""
    found = throughput_interval([1.0, math.e, math.e**2])
    half = math.sqrt(math.pi / 2) * 4.302653 / math.sqrt(3)
    assert [math.log(one) for one in found] == pytest.approx([-1 - half, -1 + half], rel=1e-6)
