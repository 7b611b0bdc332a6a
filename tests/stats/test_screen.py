"""The screen judges by the spread between sessions, and knows when it cannot."""

import math

import numpy as np
import pytest

from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.stats.screen import Spread, pooled_spread, screen


@pytest.mark.parametrize("k", [2, 5, 9])
def test_interval_holds_an_unchanged_session(k: int) -> None:
    """Over machines with 7 % between sessions, 95 % of intervals of an unchanged session hold zero."""
    logs = np.random.default_rng(1).normal(math.log(0.02), 0.07, (3000, k + 1))
    found = [screen(row[0], row[1:].tolist()) for row in np.exp(logs)]
    covered = np.mean([s.low <= 0 <= s.high for s in found if s.low is not None and s.high is not None])
    assert 0.935 < covered < 0.965


def test_change_is_of_throughput() -> None:
    """Taking 25 % longer is 20 % less throughput."""
    found = screen(0.025, [0.02, 0.02, 0.02])
    assert math.expm1(found.change) == pytest.approx(-0.2)


def test_one_session_gives_no_interval() -> None:
    """One stored session shows a change, and nothing about how large chance is."""
    found = screen(0.025, [0.02])
    assert (found.low, found.high, found.detectable, found.spread) == (None, None, None, None)
    assert found.sessions == 1


def test_the_class_lends_its_spread() -> None:
    """One session with the class's pooled spread has an interval: t(12) * 0.05 * sqrt(2) wide each way."""
    found = screen(0.02, [0.02], spread=Spread(0.05, 12))
    assert found.high == pytest.approx(2.178813 * 0.05 * math.sqrt(2), rel=1e-5)
    assert found.low is not None
    assert found.low == pytest.approx(-(found.high or 0))


def test_pooled_spread_never_hides_what_the_sessions_show() -> None:
    """A workload noisier than the class keeps its own spread; far noisier, its own degrees of freedom too."""
    sessions = [0.02, 0.021, 0.0195, 0.0205]
    own = float(np.std(np.log(sessions), ddof=1))
    near = screen(0.02, sessions, spread=Spread(0.9 * own, 20)).spread
    far = screen(0.02, sessions, spread=Spread(0.1 * own, 20)).spread
    assert near is not None
    assert far is not None
    assert near.sd == pytest.approx(own)
    assert near.df == 20
    assert far.sd == pytest.approx(own)
    assert far.df == 3


def test_pooling_needs_two_sessions_of_something() -> None:
    """Workloads with one session add nothing to the pool."""
    assert pooled_spread([[0.02], [0.03]]) is None
    found = pooled_spread([[0.02, 0.02 * math.exp(0.1)], [0.03], [1.0, math.exp(0.1), math.exp(0.2)]])
    assert found is not None
    assert found.sd == pytest.approx(math.sqrt((0.005 + 0.02) / 3))
    assert found.df == 3


def test_detectable_change_is_detected() -> None:
    """A slowdown of the stated size leaves zero outside the interval about four times in five."""
    rng, hits = np.random.default_rng(2), []
    for _ in range(3000):
        base = rng.normal(0, 0.05, 6)
        found = screen(math.exp(rng.normal(0.05 * 3.9, 0.05)), np.exp(base).tolist())
        hits.append(found.high is not None and found.high < 0)
    limit = screen(1.0, np.exp(0.05 * np.array([-1, 1, -1, 1, -1, 1]) * math.sqrt(5 / 6)).tolist()).detectable
    assert limit == pytest.approx(0.05 * (2.570582 + 0.919544) * math.sqrt(7 / 6), rel=1e-5)
    assert 0.78 < np.mean(hits) < 0.86


def test_nothing_to_compare_with_is_an_error() -> None:
    """No stored session and impossible times are refused."""
    with pytest.raises(UsageError):
        screen(0.02, [])
    with pytest.raises(InvalidError):
        screen(0.0, [0.02, 0.02])
