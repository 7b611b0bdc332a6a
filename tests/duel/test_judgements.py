"""What launches hold against their own blocks."""

import random
from dataclasses import replace

from gemma3n_perf.duel.judgements import judgements
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.pairs import Block
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.duel.duels import NOW


def launches(effect: float, shares: list[float]) -> tuple[Launch, ...]:
    """Launches of a candidate that is faster by so much, of whose blocks such shares lie outside its clock."""
    rng, made = random.Random(6), []
    for share in shares:
        tpots = {"baseline": 0.02, "candidate": 0.02 / (1 + effect) * (1 + rng.gauss(0, 0.004))}
        blocks = [
            [Block(arm, tpot * (1 + rng.gauss(0, 0.01)), 0.1, Conditions()) for arm, tpot in tpots.items()]
            for _ in range(20)
        ]
        launch = Launch(0, "baseline", 1.0, 4.0, 5, tuple((first, second) for first, second in blocks))
        made.append(replace(launch, hidden_share=share))
    return tuple(made)


def judged(effect: float, shares: list[float]) -> Judgement:
    """Judge them."""
    state = {"w": ComparisonState("w", launches(effect, shares))}
    return judgements(state, budget_s=60.0, policy=Policy(), noise=None, today=NOW.date())["w"]


def test_a_clock_that_hides_a_little_in_each_launch_wins_nothing() -> None:
    """Over all launches it is sure; what may be chance is not believed, and a slower arm has more to clear away."""
    sure, perhaps = [0.0062, 0.0058, 0.006, 0.0061, 0.0059, 0.006], [0.001, 0.012, 0.002, 0.009, 0.001, 0.011]
    assert judged(0.1, [0.001] * 6).verdict is Verdict.WIN
    found = judged(0.1, sure)
    assert found.verdict is Verdict.INVALID
    assert found.reason.startswith(
        "0.60 % more of a block of the candidate than of the baseline lie outside its own clock"
    )
    assert judged(0.1, perhaps).verdict is Verdict.INCONCLUSIVE
    assert judged(-0.1, sure).verdict is Verdict.LOSS


def beside(effect: float, slower: list[float]) -> Judgement:
    """Judge launches whose baseline is slower by so much beside the candidate than when that has ended."""
    made = launches(effect, [0.0] * len(slower))
    with_after = tuple(replace(one, after_s=0.02 / (1 + more)) for one, more in zip(made, slower, strict=True))
    state = {"w": ComparisonState("w", with_after)}
    return judgements(state, budget_s=60.0, policy=Policy(), noise=None, today=NOW.date())["w"]


def test_a_win_against_a_baseline_that_the_candidate_slows_is_none() -> None:
    """A chance difference is not held against it, nor one much smaller than the win; what may be sure is not said."""
    assert beside(0.1, [0.01, -0.02, 0.03, 0.0, 0.01, -0.01]).verdict is Verdict.WIN
    assert beside(0.1, [0.02, 0.021, 0.019, 0.02, 0.02, 0.021]).verdict is Verdict.WIN
    assert beside(0.1, [0.3, 0.15, 0.34, 0.25]).verdict is Verdict.INCONCLUSIVE
    found = beside(0.1, [0.3, 0.31, 0.28, 0.3, 0.33, 0.29])
    assert found.verdict is Verdict.INVALID
    assert found.reason.startswith("the baseline takes 20 ms a token beside the candidate, and 15.4 ms when that has")
    assert beside(0.03, [0.021, 0.02, 0.022, 0.02, 0.019, 0.021]).verdict is Verdict.INVALID
    assert beside(-0.1, [0.3, 0.31, 0.28, 0.3, 0.33, 0.29]).verdict is Verdict.LOSS


def early(effect: float, over: list[float]) -> Judgement:
    """Judge launches whose candidate takes so many times as long as the baseline to read the prompt of a whole run."""
    made = launches(effect, [0.0] * len(over))
    whole_s = (0.02, 0.02 / (1 + effect))
    runs = tuple(
        replace(one, whole_s=whole_s, whole_outside_s=(0.05, 0.05 * times))
        for one, times in zip(made, over, strict=True)
    )
    state = {"w": ComparisonState("w", runs)}
    return judgements(state, budget_s=60.0, policy=Policy(), noise=None, today=NOW.date())["w"]


def test_one_long_read_of_a_prompt_is_no_proof() -> None:
    """Nor is that of a slower candidate, as on an H100: of 90 runs of identical arms one took 43 % longer outside."""
    assert early(0.1, [1.0, 1.9, 0.8, 1.1, 1.0, 1.2]).verdict is Verdict.WIN
    assert early(-0.1, [1.9, 1.8, 1.9, 2.0, 1.9, 1.9]).verdict is Verdict.LOSS
    assert early(0.1, [1.9, 1.5, 2.6, 1.4, 1.9]).verdict is Verdict.INCONCLUSIVE
    assert early(0.1, [1.9, 1.8, 1.9, 2.0, 1.9, 1.9]).verdict is Verdict.INVALID
