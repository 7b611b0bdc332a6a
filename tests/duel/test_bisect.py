import math

import numpy as np
import pytest

from gemma3n_perf.cli.bisect import as_text
from gemma3n_perf.duel.bisect import Compare, bisect
from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge, should_stop
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, Verdict

STEPS = [f"ref:{number}" for number in range(17)]


class Bench:
    """Compares by number: a loss from ``first`` on, and steps that cannot be told, or only with twice the budget."""

    def __init__(
        self,
        first: int,
        *,
        untold: tuple[int, ...] = (),
        hard: tuple[int, ...] = (),
        sign: str = "loss",
        effect: float = -0.05,
    ) -> None:
        self.first, self.untold, self.hard = first, untold, hard
        self.sign = Verdict(sign)
        self.effect = effect
        self.asked: list[tuple[int, int, float]] = []
        self.rules: list[tuple[float, float]] = []

    def __call__(self, baseline: str, candidate: str, budget_s: float, policy: Policy) -> Judgement:
        """Judge."""
        a, b = int(baseline[4:]), int(candidate[4:])
        self.rules.append((policy.minimum_effect, policy.margin))
        self.asked.append((a, b, budget_s))
        if b in self.untold or (b in self.hard and budget_s < 120):
            return Judgement(Verdict.INCONCLUSIVE, "noisy")
        return Judgement(self.sign if a < self.first <= b else Verdict.NO_CHANGE, "", self.effect, -0.06, -0.04)


@pytest.mark.parametrize("first", range(1, 17))
def test_the_first_changed_step_is_found(first: int) -> None:
    """Wherever it is, in as many duels as a binary search needs, with its own effect at the end."""
    bench = Bench(first)
    found = bisect(STEPS, bench, budget_s=60)
    assert list(found.suspects) == [STEPS[first]]
    assert found.last_good == STEPS[first - 1]
    assert found.judgement.verdict is Verdict.LOSS
    assert bench.asked[-1] == (first - 1, first, 60.0)
    assert len(bench.asked) <= 1 + 4 + 1


@pytest.mark.parametrize(
    ("effect", "least", "margin"), [(-0.3, 0.1, 0.1), (-0.024, 0.008, 0.01), (-0.01, 0.005, 0.01), (3.2, 0.5, 0.5)]
)
def test_a_step_is_judged_by_the_change_that_is_looked_for(effect: float, least: float, margin: float) -> None:
    """A large change is told from none soon, even where the machine is noisy; never more strictly than usual."""
    bench = Bench(5, effect=effect)
    bisect(STEPS, bench, budget_s=60)
    assert bench.rules[0] == (0.005, 0.01)
    for found in bench.rules[1:]:
        assert found == pytest.approx((least, margin))


def duels(*, small: float, launch_sd: float, rng: np.random.Generator) -> Compare:
    """Return duels of launches that scatter so; the 5th step loses ``small``, and from the 11th on it is 10 %."""

    def speed(arm: str) -> float:
        number = int(arm[4:])
        return math.log(0.9 if number >= 11 else 1 - small if number >= 5 else 1.0)

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy) -> Judgement:
        true, launches = speed(candidate) - speed(baseline), list[LaunchEstimate]()
        while True:
            launches.append(LaunchEstimate(true + launch_sd * rng.standard_normal(), 5.0))
            spent = 5.0 * (len(launches) + 1) > budget_s
            found = judge(launches, policy, budget_s=budget_s, budget_spent=spent)
            if spent or should_stop(found):
                return found

    return compare


@pytest.mark.parametrize("small", [0.01, 0.015, 0.02])
def test_a_lesser_change_before_it_does_not_mislead(small: float) -> None:
    """A step with a fifth of the change is on the good side, and no step between the two is ever named."""
    rng = np.random.default_rng(4)
    for _ in range(30):
        found = bisect(STEPS, duels(small=small, launch_sd=0.008, rng=rng), budget_s=60)
        assert STEPS[11] in found.suspects
        assert found.confirmed


def test_a_change_that_came_in_several_steps_is_said_to() -> None:
    """The last duel is against the last good step; where it does not show the ends' change, no step is accused."""

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy) -> Judgement:
        gap = int(candidate[4:]) - int(baseline[4:])
        verdict = Verdict.LOSS if gap > 5 else Verdict.NO_CHANGE
        return Judgement(verdict, "", -0.01 * gap, -0.01 * gap, -0.01 * gap)

    found = bisect(STEPS, compare, budget_s=60)
    assert found.suspects == (STEPS[6],)
    assert not found.confirmed
    assert "seems to have come in several" in as_text(found)
    assert "the first changed step" not in as_text(found)


def test_a_last_duel_that_tells_nothing_accuses_and_excuses_no_one() -> None:
    """The step is probably the one."""

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy) -> Judgement:
        if baseline != STEPS[0]:
            return Judgement(Verdict.INCONCLUSIVE, "noisy", -0.09, -0.2, 0.02)
        return Judgement(Verdict.LOSS if int(candidate[4:]) > 2 else Verdict.NO_CHANGE, "", -0.1, -0.11, -0.09)

    said = as_text(bisect(STEPS, compare, budget_s=60))
    assert said.startswith(f"the first changed step is probably {STEPS[3]}")
    assert "several" not in said


def test_a_speed_up_is_found_alike() -> None:
    """What changed is looked for, in the direction of the ends."""
    assert bisect(STEPS, Bench(5, sign="win"), budget_s=60).suspects == (STEPS[5],)


def test_an_inconclusive_step_gets_twice_the_budget_once() -> None:
    """As a duel of its own."""
    bench = Bench(5, hard=(8,))
    assert bisect(STEPS, bench, budget_s=60).suspects == (STEPS[5],)
    assert [budget for _, step, budget in bench.asked if step == 8] == [60, 120]


def test_a_step_that_cannot_be_told_is_skipped() -> None:
    """The search goes on around it."""
    assert bisect(STEPS, Bench(5, untold=(8,)), budget_s=60).suspects == (STEPS[5],)


def test_skipped_steps_beside_the_change_widen_the_answer() -> None:
    """All that it may be are named, and the effect is that of the newest against the last good one."""
    found = bisect(STEPS, Bench(8, untold=(7, 8)), budget_s=60)
    assert found.suspects == (STEPS[7], STEPS[8], STEPS[9])
    assert found.last_good == STEPS[6]
    assert found.judgement.verdict is Verdict.LOSS


def test_neighbours_need_one_duel() -> None:
    """The ends' own duel is the answer."""
    bench = Bench(1)
    assert bisect(STEPS[:2], bench, budget_s=60).suspects == (STEPS[1],)
    assert len(bench.asked) == 1


def test_ends_that_do_not_differ_are_refused() -> None:
    """There is nothing to find."""
    with pytest.raises(UsageError, match="as fast as"):
        bisect(STEPS, Bench(99), budget_s=60)


def test_ends_that_cannot_be_told_are_not_measured() -> None:
    """A search from there would find noise."""
    with pytest.raises(NotMeasuredError, match="cannot be told"):
        bisect(STEPS, Bench(5, untold=(16,)), budget_s=60)


def test_one_step_is_no_range() -> None:
    """GOOD and BAD must differ."""
    with pytest.raises(UsageError):
        bisect(STEPS[:1], Bench(1), budget_s=60)
