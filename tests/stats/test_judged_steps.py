"""Duels whose launches are read from steps: the aligned estimate, the look at shapes and the judge together."""

import numpy as np
import pytest

from gemma3n_perf.stats.judge import judge, should_stop
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.steps import by_shape, estimate_steps
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.stats.host import steps

LAUNCH_S, LAUNCHES = 10.0, 12


def duel(rng: np.random.Generator, faster: float, *, stalls: float = 0.05, slow: float = 0.0) -> Judgement:
    """Launches of 28 pairs on a host of two speeds, some steps stalled, with a look after each from the third on. A
    share ``slow`` of the candidate's steps takes twice as long."""
    launches = []
    while True:
        base, cand = steps(rng, 28, faster, stalls=stalls, count=5)
        twice = np.array(cand) * (1 + (rng.random((28, 5)) < slow))
        launches.append(estimate_steps(base, twice.tolist(), seconds=LAUNCH_S))
        if len(launches) < 3:
            continue
        spent = len(launches) == LAUNCHES
        found = judge(by_shape(launches), Policy(), budget_s=LAUNCHES * LAUNCH_S, budget_spent=spent)
        if spent or should_stop(found):
            return found


@pytest.mark.parametrize(
    ("faster", "stalls", "right", "least"),
    [
        (0.02, 0.05, Verdict.WIN, 380),
        (-0.02, 0.05, Verdict.LOSS, 380),
        (0.0, 0.0, Verdict.NO_CHANGE, 340),
        (0.0, 0.05, Verdict.NO_CHANGE, 100),
    ],
)
def test_duels_on_a_host_of_two_speeds_are_right(faster: float, stalls: float, right: Verdict, least: int) -> None:
    """At most one of 200 says what is not there: a rule that takes whole times where three launches happen to agree on
    them called one of 27 identical arms changed. Stalls leave room for an arm that is slow now and then."""
    rng = np.random.default_rng(21)
    found = [duel(rng, faster, stalls=stalls) for _ in range(400)]
    said = [one.verdict for one in found]
    assert len(said) - said.count(right) - said.count(Verdict.INCONCLUSIVE) <= 2
    assert said.count(right) >= least
    assert sum((one.low or 0.0) <= faster <= (one.high or 0.0) for one in found) >= 370


@pytest.mark.parametrize("stalls", [0.0, 0.05])
def test_an_arm_that_is_slow_now_and_then_is_never_called_unchanged(stalls: float) -> None:
    """A tenth of its steps take twice as long: its typical step does not show it. Two of three duels said no change."""
    rng = np.random.default_rng(8)
    said = [duel(rng, 0.0, stalls=stalls, slow=0.1).verdict for _ in range(100)]
    assert said.count(Verdict.NO_CHANGE) <= 1
    assert Verdict.WIN not in said
