"""The two intervals of a look relate to each other as promised."""

import datetime as dt
import math

import numpy as np
import pytest

from gemma3n_perf.stats.bounds import half_widths
from gemma3n_perf.stats.estimates import mean_interval
from gemma3n_perf.stats.spread import NoiseFloor

CALM = NoiseFloor(0.0, 0.001, 60, 10, 0.0, dt.date(2026, 1, 1))


def test_plain_is_students_interval() -> None:
    """The reported half width is that of the textbook interval of the same launches."""
    values = [0.01, 0.012, 0.009, 0.02]
    textbook = mean_interval(values)
    widths = half_widths(float(np.var(values, ddof=1)), 4, tail=0.01, alpha=0.05)
    assert float(widths.plain) == pytest.approx((textbook.high - textbook.low) / 2)


def test_repeated_is_wider_at_an_early_look() -> None:
    """At a look with a tenth of the error, the half width is t(0.0025) / t(0.025) of the plain one."""
    widths = half_widths(1e-4, 8, tail=0.005, alpha=0.05)
    assert float(widths.repeated / widths.plain) == pytest.approx(4.029337 / 2.364624, rel=1e-5)


def test_repeated_is_never_narrower_than_plain() -> None:
    """A calibration calmer than the launches lends degrees of freedom, but no interval below the plain one."""
    widths = half_widths(0.0014**2, 3, tail=0.05, alpha=0.05, prior=CALM, prior_weight=4)
    assert float(widths.repeated) == float(widths.plain)


def test_dependence_widens_both() -> None:
    """Launches found to be dependent widen the reported and the deciding interval by the root of the factor."""
    once = half_widths(1e-4, 8, tail=0.005, alpha=0.05)
    thrice = half_widths(1e-4, 8, tail=0.005, alpha=0.05, inflation=9.0)
    assert float(thrice.plain / once.plain) == pytest.approx(3)
    assert float(thrice.repeated / once.repeated) == pytest.approx(3)
    assert float(thrice.sd / once.sd) == pytest.approx(3)


def test_blocks_widen_only_the_deciding_interval() -> None:
    """What the blocks imply holds a decision back without changing what is reported."""
    bare = half_widths(1e-8, 5, tail=0.005, alpha=0.05)
    held = half_widths(1e-8, 5, tail=0.005, alpha=0.05, within=1e-4)
    assert float(held.plain) == float(bare.plain)
    assert float(held.repeated / bare.repeated) == pytest.approx(100)


def test_nothing_spent_decides_nothing() -> None:
    """A look without error to spend has an infinite deciding interval, the reported one stays finite."""
    widths = half_widths(np.array([1e-4, 0.0]), 5, tail=0.0, alpha=0.05)
    assert all(math.isinf(half) for half in widths.repeated)
    assert all(0 < half < 1 for half in widths.plain)
