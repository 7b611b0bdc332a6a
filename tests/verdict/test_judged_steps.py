"""Duels whose launches are read from steps: the aligned estimate, the look at shapes and the judge together."""

import numpy as np
import pytest

from gemma3n_perf.stats.steps import by_shape, estimate_steps
from gemma3n_perf.verdict.judge import judge, should_stop
from gemma3n_perf.verdict.policy import Policy
from gemma3n_perf.verdict.types import Judgement, Verdict
from tests.stats.host import steps

LAUNCH_S, LAUNCHES = 10.0, 12


def duel(rng: np.random.Generator, faster: float) -> Judgement:
    """Launches of 28 pairs on a host of two speeds, some steps stalled, with a look after each from the third on."""
    launches = []
    while True:
        times = steps(rng, 28, faster, stalls=0.05, count=5)
        launches.append(estimate_steps(*times, seconds=LAUNCH_S))
        if len(launches) < 3:
            continue
        spent = len(launches) == LAUNCHES
        found = judge(by_shape(launches), Policy(), budget_s=LAUNCHES * LAUNCH_S, budget_spent=spent)
        if spent or should_stop(found):
            return found


@pytest.mark.parametrize(("faster", "right"), [(0.0, Verdict.NO_CHANGE), (0.02, Verdict.WIN), (-0.02, Verdict.LOSS)])
def test_duels_on_a_host_of_two_speeds_are_right(faster: float, right: Verdict) -> None:
    """Nearly all say what is there, and at most one of 200 what is not: a rule that takes whole times where three
    launches happen to agree on them called one of 27 identical arms changed."""
    rng = np.random.default_rng(21)
    found = [duel(rng, faster) for _ in range(400)]
    said = [one.verdict for one in found]
    assert len(said) - said.count(right) - said.count(Verdict.INCONCLUSIVE) <= 2
    assert said.count(right) >= 380
    assert sum((one.low or 0.0) <= faster <= (one.high or 0.0) for one in found) >= 370
