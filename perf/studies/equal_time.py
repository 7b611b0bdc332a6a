"""Every rule at equal wall time, each in its own protocol: this suite, a t test of interleaved pairs, other tools.

A round's longest duel is the wall time. This suite and the t test read its pairs as they were measured. Other tools'
users measure one side and then the other, in fresh processes, so their rules read the processes of the first half of
the launches as the baseline and those of the second half as the candidate. Planted truths are taken out first, and the
truth that is asked about is put in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import ttest_1samp

from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge, should_stop
from gemma3n_perf.stats.policy import Policy
from studies.external_rules import RULES, Call
from studies.validation import OURS, Rate, Trial

PAIRS = "interleaved pairs, t test"
"""The strongest rival: the same launches, all of them, and a plain t test of their log ratios at 0.05."""

LEAST_LAUNCHES = 6
"""Launches of a round that are worth a comparison of rules: three fresh processes twice for each side."""

TRUTHS = (0.0, 0.02, -0.02, 0.05, -0.05, 0.1, -0.1)
"""Effects that are asked about."""

_SAID: Mapping[str, Call] = {"win": "faster", "loss": "slower"}


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured, in order, with nothing planted: log ratios for the judge, and seconds per token of the
    fresh processes of each launch, both arms' alike."""

    launches: tuple[LaunchEstimate, ...]
    processes: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A rule: how often it was wrong at 0, and how often right and wrong at each size of effect, either direction."""

    rule: str
    wrong_at_0: Rate
    right: Mapping[float, Rate]
    wrong: Mapping[float, Rate]


def sequences(trials: Sequence[Trial]) -> list[Round]:
    """Return the longest duel of each round, without what was planted; rounds of too few launches are left out."""
    longest: dict[int, Trial] = {}
    for one in trials:
        if one.duel.round not in longest or len(longest[one.duel.round].launches) < len(one.launches):
            longest[one.duel.round] = one
    return [_unplanted(one) for _, one in sorted(longest.items()) if len(one.launches) >= LEAST_LAUNCHES]


def _unplanted(one: Trial) -> Round:
    launches = tuple(_moved(launch, -float(np.log1p(one.duel.truth))) for launch in one.launches)
    factors = (1.0, 1 + one.duel.planted) if one.duel.planted >= 0 else (1 / (1 + one.duel.planted), 1.0)
    pairs = zip(*one.samples, strict=True)
    return Round(launches, tuple((base / factors[0], cand / factors[1]) for base, cand in pairs))


def _moved(one: LaunchEstimate, by: float) -> LaunchEstimate:
    whole = None if one.whole is None else one.whole + by
    return replace(one, log_ratio=one.log_ratio + by, whole=whole)


def calls(measured: Round, truth: float) -> dict[str, Call]:
    """Return what each rule says of a candidate that is ``truth`` faster."""
    shift = float(np.log1p(truth))
    launches = [_moved(one, shift) for one in measured.launches]
    half = len(measured.processes) // 2
    base = [value for pair in measured.processes[:half] for value in pair]
    cand = [value / (1 + truth) for pair in measured.processes[half:] for value in pair]
    ratios = [one.log_ratio for one in launches]
    differs = float(ttest_1samp(ratios, 0.0).pvalue) < 0.05
    found: dict[str, Call] = {
        OURS: _judged(launches),
        PAIRS: ("faster" if np.mean(ratios) > 0 else "slower") if differs else "same",
    }
    return found | {name: rule(base, cand) for name, rule in RULES.items()}


def _judged(launches: Sequence[LaunchEstimate]) -> Call:
    """What this suite says: looks after each launch, and an end at the first that shows something."""
    policy, budget_s = Policy(), sum(one.seconds for one in launches)
    for count in range(policy.min_launches, len(launches) + 1):
        found = judge(launches[:count], policy, budget_s=budget_s, budget_spent=count == len(launches))
        if should_stop(found):
            return _SAID.get(found.verdict.value, "same")
    return "same"


def compared(trials: Sequence[Trial]) -> list[Row]:
    """Return every rule over all rounds, this suite first. A round is one independent case, whatever it is asked."""
    measured = sequences(trials)
    said = {truth: [calls(one, truth) for one in measured] for truth in TRUTHS}
    rows = []
    for rule in (OURS, PAIRS, *RULES):
        wrong_at_0 = sum(one[rule] != "same" for one in said[0.0])
        right, wrong = dict[float, Rate](), dict[float, Rate]()
        for size in sorted({abs(truth) for truth in TRUTHS} - {0.0}):
            both = [("faster", one[rule]) for one in said[size]] + [("slower", one[rule]) for one in said[-size]]
            of, worth = len(both), float(len(measured))
            right[size] = Rate(sum(true == call for true, call in both), of, worth)
            wrong[size] = Rate(sum(call not in (true, "same") for true, call in both), of, worth)
        rows.append(Row(rule, Rate(wrong_at_0, len(measured)), right, wrong))
    return rows
