import math
from collections.abc import Callable

import numpy as np
import pytest

from gemma3n_perf.cli.bisect import as_text
from gemma3n_perf.duel.bisect import Compare, Found, bisect
from gemma3n_perf.errors import UsageError
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

    def __call__(self, baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        """Judge."""
        a, b = int(baseline[4:]), int(candidate[4:])
        self.rules.append((policy.minimum_effect, policy.margin))
        self.asked.append((a, b, budget_s))
        if b in self.untold or (b in self.hard and budget_s < 120):
            return Judgement(Verdict.INCONCLUSIVE, "noisy")
        changed = a < self.first <= b
        effect = self.effect if changed else 0.0
        return Judgement(self.sign if changed else Verdict.NO_CHANGE, "", effect, effect - 0.005, effect + 0.005)


@pytest.mark.parametrize("first", range(1, 17))
def test_the_changed_step_is_found(first: int) -> None:
    """Wherever it is, in as many duels as a binary search needs and one of each right half, and no other is named."""
    bench = Bench(first)
    found = bisect(STEPS, bench, budget_s=60)
    (step,) = found.steps
    assert step.suspects == (STEPS[first],)
    assert step.before == STEPS[first - 1]
    assert step.judgement.verdict is Verdict.LOSS
    assert step.share == pytest.approx(1)
    assert found.unexplained == pytest.approx(0)
    assert len(bench.asked) <= 1 + 2 * 4 + 1


@pytest.mark.parametrize(
    ("effect", "least", "margin"), [(-0.4, 0.05, 0.05), (-0.064, 0.008, 0.01), (-0.01, 0.005, 0.01), (5.2, 0.5, 0.5)]
)
def test_a_step_is_judged_by_the_change_that_is_looked_for(effect: float, least: float, margin: float) -> None:
    """A large change is told from none soon, even where the machine is noisy; never more strictly than usual."""
    bench = Bench(5, effect=effect, sign="win" if effect > 0 else "loss")
    bisect(STEPS, bench, budget_s=60)
    assert bench.rules[0] == (0.005, 0.01)
    for found in bench.rules[1:]:
        assert found == pytest.approx((least, margin))


def duels(effects: dict[int, float], *, launch_sd: float, rng: np.random.Generator) -> Compare:
    """Return duels of launches that scatter so; each step among ``effects`` changes throughput by that much."""

    def speed(arm: str) -> float:
        return math.fsum(math.log1p(effect) for step, effect in effects.items() if int(arm[4:]) >= step)

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        true, launches = speed(candidate) - speed(baseline), list[LaunchEstimate]()
        while True:
            launches.append(LaunchEstimate(true + launch_sd * rng.standard_normal(), 3.0))
            spent = 3.0 * (len(launches) + 1) > budget_s
            found = judge(launches, policy, budget_s=budget_s, budget_spent=spent)
            if spent or (settle and should_stop(found)):
                return found

    return compare


def named(found: Found) -> dict[str, float]:
    """Return the effect of each step that was named alone."""
    return {one.suspects[0]: one.judgement.effect or 0.0 for one in found.steps if len(one.suspects) == 1}


@pytest.mark.parametrize("launch_sd", [0.008, 0.012])
def test_every_step_is_named_with_its_share(launch_sd: float) -> None:
    """-8 % and -3 % among six commits, wherever they are: both, within 1.5 points, and nothing else."""
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(100):
        first, second = rng.choice(range(1, 6), 2, replace=False)
        effects = {int(first): -0.08, int(second): -0.03}
        found = bisect(STEPS[:6], duels(effects, launch_sd=launch_sd, rng=rng), budget_s=60)
        said = named(found)
        exact = said.keys() == {STEPS[step] for step in effects}
        near = exact and all(abs(said[STEPS[step]] - effect) < 0.015 for step, effect in effects.items())
        wrong += not near
        assert set(said) <= {STEPS[step] for step in effects}
    assert wrong <= 2


def test_steps_that_go_both_ways_are_both_named() -> None:
    """What one commit loses and another partly wins back."""
    rng = np.random.default_rng(5)
    found = bisect(STEPS, duels({4: -0.10, 12: 0.04}, launch_sd=0.008, rng=rng), budget_s=60)
    said = named(found)
    assert said[STEPS[4]] == pytest.approx(-0.10, abs=0.01)
    assert said[STEPS[12]] == pytest.approx(0.04, abs=0.01)
    assert abs(found.unexplained) < 0.015


def test_an_unchanged_step_is_never_named() -> None:
    """A small step may be named or not, one that changes nothing is not."""
    rng = np.random.default_rng(4)
    for small in (-0.01, -0.02):
        for _ in range(20):
            found = bisect(STEPS, duels({5: small, 11: -0.09}, launch_sd=0.008, rng=rng), budget_s=60)
            assert STEPS[11] in named(found) or any(STEPS[11] in one.suspects for one in found.steps)
            assert set(named(found)) <= {STEPS[5], STEPS[11]}


def test_a_change_that_came_in_many_small_steps_is_said_to() -> None:
    """No step is accused."""

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        gap = int(candidate[4:]) - int(baseline[4:])
        verdict = Verdict.LOSS if gap > 5 else Verdict.NO_CHANGE
        return Judgement(verdict, "", -0.01 * gap, -0.01 * gap, -0.01 * gap)

    found = bisect(STEPS, compare, budget_s=60)
    assert found.steps == ()
    said = as_text(found, STEPS[0], STEPS[-1])
    assert "several small ones" in said
    assert "not in these steps: -16.0 %" in said


DISTURBED = (
    [0.00145, 0.00684, 0.00403, -0.0109, -0.00664, -0.00279, -0.00656],
    [9.8, 9.11, 7.24, 7.33, 7.66, 7.36, 6.16],
)
"""Log ratios and seconds of recorded launches of unchanged code: the second duel of the H100's noise floor."""


def recorded(second: Callable[[Policy], Judgement]) -> Compare:
    """Return duels of two neighbours of -8 %: the first one disturbed, so that halves differ, then ``second``."""
    count = 0

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        nonlocal count
        if (baseline, candidate) != (STEPS[1], STEPS[2]):
            changed = int(candidate[4:]) >= 2 > int(baseline[4:])
            effect = -0.08 if changed else 0.0
            return Judgement(Verdict.LOSS if changed else Verdict.NO_CHANGE, "", effect, effect - 0.005, effect + 0.005)
        count += 1
        return second(policy) if count > 1 else disturbed(policy)

    return compare


def disturbed(policy: Policy, effect: float = -0.08, scale: float = 1.0) -> Judgement:
    """Judge the recorded launches, moved to an effect; ``scale`` is how much more they scatter."""
    launches = [LaunchEstimate(math.log1p(effect) + scale * one, took) for one, took in zip(*DISTURBED, strict=True)]
    found = judge(launches, policy, budget_s=60, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "halves-disagree" in {one.code for one in found.cautions}
    return found


def test_a_step_whose_verdict_is_withheld_is_measured_once_more() -> None:
    """And named without a caution where that says so."""
    loss = Judgement(Verdict.LOSS, "", -0.08, -0.085, -0.075)
    (step,) = bisect(STEPS[:3], recorded(lambda policy: loss), budget_s=60).steps
    assert step.suspects == (STEPS[2],)
    assert step.judgement is loss


def test_a_step_whose_verdict_is_withheld_twice_is_named_as_probable() -> None:
    """Never dropped: its whole interval is beyond the threshold each time. What withholds the verdict is said."""
    found = bisect(STEPS[:3], recorded(disturbed), budget_s=60)
    (step,) = found.steps
    assert step.suspects == (STEPS[2],)
    assert step.judgement.high is not None
    assert step.judgement.high < -0.07
    said = as_text(found, STEPS[0], STEPS[2])
    assert "ref:2 probably changed it: -8.1" in said
    assert "the first and the second half of the launches disagree" in said


@pytest.mark.parametrize(("effect", "scale"), [(0.08, 1.0), (-0.08, 10.0)])
def test_a_step_that_two_duels_do_not_agree_on_is_not_named(effect: float, scale: float) -> None:
    """Another direction, or launches that scatter as far as what they show: it could not be told, and why not."""
    found = bisect(STEPS[:3], recorded(lambda policy: disturbed(policy, effect, scale)), budget_s=60)
    assert found.steps == ()
    assert "ref:2 against ref:1 could not be told: the first and the second half" in as_text(found, STEPS[0], STEPS[2])


def test_a_last_duel_that_tells_nothing_accuses_no_one() -> None:
    """The range is named as one that could not be told."""

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        if baseline != STEPS[0]:
            return Judgement(Verdict.INCONCLUSIVE, "noisy", -0.09, -0.2, 0.02)
        return Judgement(Verdict.LOSS if int(candidate[4:]) > 2 else Verdict.NO_CHANGE, "", -0.1, -0.11, -0.09)

    found = bisect(STEPS, compare, budget_s=60)
    assert found.steps == ()
    assert {(before, newest) for before, newest, _ in found.unclear} & {(STEPS[2], STEPS[3]), (STEPS[2], STEPS[4])}
    assert "could not be told" in as_text(found, STEPS[0], STEPS[-1])


def test_a_speed_up_is_found_alike() -> None:
    """What changed is looked for, in the direction of the ends."""
    (step,) = bisect(STEPS, Bench(5, sign="win", effect=0.05), budget_s=60).steps
    assert step.suspects == (STEPS[5],)


def test_an_inconclusive_step_gets_twice_the_budget_once() -> None:
    """As a duel of its own."""
    bench = Bench(5, hard=(8,))
    (step,) = bisect(STEPS, bench, budget_s=60).steps
    assert step.suspects == (STEPS[5],)
    assert [budget for a, b, budget in bench.asked if (a, b) == (0, 8)] == [60, 120]


def test_a_step_that_cannot_be_told_is_skipped() -> None:
    """The search goes on around it."""
    (step,) = bisect(STEPS, Bench(5, untold=(8,)), budget_s=60).steps
    assert step.suspects == (STEPS[5],)


def test_skipped_steps_beside_the_change_widen_the_answer() -> None:
    """All that it may be are named, and the effect is that of the newest against the last good one."""
    (step,) = bisect(STEPS, Bench(8, untold=(7, 8)), budget_s=60).steps
    assert step.suspects == (STEPS[7], STEPS[8], STEPS[9])
    assert step.before == STEPS[6]
    assert step.judgement.verdict is Verdict.LOSS


def test_neighbours_need_one_duel() -> None:
    """The ends' own duel is the answer, where it is precise enough."""
    bench = Bench(1)
    (step,) = bisect(STEPS[:2], bench, budget_s=60).steps
    assert step.suspects == (STEPS[1],)
    assert len(bench.asked) == 1


@pytest.mark.parametrize(("first", "untold", "verdict"), [(99, (), "no-change"), (5, (16,), "inconclusive")])
def test_ends_that_show_no_change_are_not_searched(first: int, untold: tuple[int, ...], verdict: str) -> None:
    """A search from there would find noise; the verdict of the ends is the answer."""
    found = bisect(STEPS, Bench(first, untold=untold), budget_s=60)
    assert found.ends.verdict == verdict
    assert found.steps == ()


def test_one_step_is_no_range() -> None:
    """GOOD and BAD must differ."""
    with pytest.raises(UsageError):
        bisect(STEPS[:1], Bench(1), budget_s=60)


def test_a_bad_moment_skips_no_step() -> None:
    """What was not measured is tried once more."""
    bench, failed = Bench(5), set[str]()

    def compare(baseline: str, candidate: str, budget_s: float, policy: Policy, settle: bool) -> Judgement:
        if candidate not in failed:
            failed.add(candidate)
            return Judgement(Verdict.NOT_MEASURED, "a compiler ran beside it")
        return bench(baseline, candidate, budget_s, policy, settle)

    (step,) = bisect(STEPS, compare, budget_s=60).steps
    assert step.suspects == (STEPS[5],)
