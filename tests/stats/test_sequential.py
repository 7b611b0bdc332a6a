"""Looking after every launch spends exactly the error that was promised."""

import math
import time

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.sequential import critical, nominal_tails, tail_probabilities


def test_published_boundary_is_reproduced() -> None:
    """Five equal looks, O'Brien-Fleming spending at 5 % two-sided: the bounds of Lan & DeMets (1983)."""
    errors = [4.0 * float(ndtr(-2.241403 / math.sqrt(k / 5))) for k in range(1, 6)]
    bounds = [float(-ndtri(tail / 2)) for tail in nominal_tails(range(1, 6), errors)]
    assert bounds == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)


@pytest.mark.parametrize("rho", [1.0, 1.5, 3.0])
def test_all_looks_together_err_as_promised(rho: float) -> None:
    """Gaussian paths cross any of ten uneven looks 5 % of the time."""
    counts, fractions = [3, 4, 5, 7, 8, 9, 12, 13, 16, 20], [0.1, 0.2, 0.2, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0]
    tails = np.array(tail_probabilities(counts, fractions, 0.05, rho))
    paths = np.random.default_rng(1).standard_normal((60_000, 20)).cumsum(axis=1)
    z = np.abs(paths[:, np.array(counts) - 1]) / np.sqrt(counts)
    crossed = (z > -ndtri(tails / 2)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.003)


def test_students_paths_err_little_more() -> None:
    """With the spread estimated from the launches themselves, 12 looks err at most 6.5 % where 5 % was meant."""
    n = np.arange(3, 13)
    tails = tail_probabilities(n.tolist(), (n / 12).tolist(), 0.05, 1.5)
    x = np.random.default_rng(2).standard_normal((40_000, 12))
    total, squares = x.cumsum(axis=1)[:, 2:], (x**2).cumsum(axis=1)[:, 2:]
    sd = np.sqrt((squares - total**2 / n) / (n - 1))
    limits = np.array([critical(tail, k - 1) for tail, k in zip(tails, range(3, 13), strict=True)])
    crossed = (np.abs(total / n) / sd * np.sqrt(n) > limits).any(axis=1).mean()
    assert 0.045 < crossed < 0.065


def test_single_look_is_the_plain_test() -> None:
    """One look at the end of the budget has the whole error."""
    assert tail_probabilities([5], [1.0], 0.05, 1.5)[0] == pytest.approx(0.05, rel=1e-6)
    assert critical(0.05, 4) == pytest.approx(2.776445, rel=1e-6)


def test_a_look_that_spends_nothing_decides_nothing() -> None:
    """Two looks at the same share of the budget: the second has no error left to spend."""
    tails = tail_probabilities([3, 4], [0.5, 0.5], 0.05, 1.0)
    assert tails[1] == 0.0
    assert critical(tails[1], 3) == math.inf


def test_earlier_looks_do_not_change_with_later_ones() -> None:
    """A look taken is final: what follows cannot rewrite its limit."""
    fractions = [0.1, 0.3, 0.6, 1.0]
    whole = tail_probabilities([3, 4, 5, 6], fractions, 0.05, 1.5)
    assert tail_probabilities([3, 4], fractions[:2], 0.05, 1.5) == whole[:2]


def test_spending_stays_within_the_budget() -> None:
    """Nothing is spent before the start, everything at the end, and no more after it."""
    for used, error in ((-0.5, 0.0), (0.0, 0.0), (0.25, 0.00625), (1.0, 0.05), (1.7, 0.05)):
        assert tail_probabilities([3], [used], 0.05, 1.5)[0] == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize(
    ("counts", "fractions", "alpha", "rho"),
    [
        ([3, 3], [0.1, 0.2], 0.05, 1.5),
        ([3, 4], [0.2, 0.1], 0.05, 1.5),
        ([3], [0.1, 0.2], 0.05, 1.5),
        ([], [], 0.05, 1.5),
        ([0, 3], [0.1, 0.2], 0.05, 1.5),
        ([3], [1.0], 0, 1.5),
        ([3], [1.0], 1.0, 1.5),
        ([3], [1.0], 0.05, 0.0),
    ],
)
def test_looks_out_of_order_are_refused(counts: list[int], fractions: list[float], alpha: float, rho: float) -> None:
    """Looks that could not have happened, or an error that is spent before the first, are no number."""
    with pytest.raises(UsageError):
        tail_probabilities(counts, fractions, alpha, rho)


def test_sixty_looks_are_fast() -> None:
    """A long duel's whole schedule takes under 0.5 s from nothing, so one look far less than 50 ms."""
    fractions = [n / 60.5 for n in range(1, 61)]
    start = time.process_time()
    tail_probabilities(range(1, 61), fractions, 0.0437, 1.5)
    assert time.process_time() - start < 0.5
