"""How often each rule was right, over duels whose truth was planted.

A rate without the number it is a rate of is an anecdote, so every rate carries its count and its interval. Other tools'
rules read the same launches as the judge, interleaved as it measured them: better samples than their users take.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from gemma3n_perf.duel.validation import launch_estimates
from gemma3n_perf.duel.validation_record import PowerDuel
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.stats.estimates import LaunchEstimate, relative_change
from gemma3n_perf.stats.policy import MARGIN, Policy
from gemma3n_perf.stats.verdicts import Verdict
from studies import step_estimators
from studies.external_rules import RULES
from studies.simulation import Scenario, replay

OURS = "this suite"
LEAST_POOL = 30
"""Launches that duels may be resampled from: fewer would draw the same ones over and over."""

_SAID = {"win": "faster", "loss": "slower"}


@dataclass(frozen=True, slots=True)
class Trial:
    """One duel of known truth, and what the rules read of it.

    ``samples``: seconds per token of baseline and candidate, one for each launch. ``launches``: what the judge read.
    """

    duel: PowerDuel
    samples: tuple[tuple[float, ...], tuple[float, ...]]
    launches: tuple[LaunchEstimate, ...]

    @classmethod
    def of(cls, duel: PowerDuel) -> "Trial":
        """Read the launches of a duel. Raises InvalidError for times that are not positive."""
        base = tuple(float(np.mean(one.baseline_s)) for one in duel.launches)
        cand = tuple(float(np.mean(one.candidate_s)) for one in duel.launches)
        return cls(duel, (base, cand), launch_estimates(duel.launches))


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` of ``of``, with its exact 95 % interval (Clopper & Pearson 1934)."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """The rate, 0..1."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        if not self.of:
            return 0.0, 1.0
        found = binomtest(self.count, self.of).proportion_ci(0.95, "exact")
        return float(found.low), float(found.high)


@dataclass(frozen=True, slots=True)
class Row:
    """One rule over all trials of one truth: how often it named the true direction, and how often a wrong one."""

    rule: str
    truth: float
    right: Rate
    wrong: Rate


@dataclass(frozen=True, slots=True)
class Group:
    """All trials of one truth and budget. Seconds are of measuring.

    ``covered``: how many of the intervals hold the truth. ``half_width``: half of the median interval, in effect; None
    where no trial has one. ``rows``: this suite's rule first.
    """

    truth: float
    budget_s: float
    verdicts: Mapping[str, int]
    covered: Rate
    half_width: float | None
    median_s: float
    longest_s: float
    rows: tuple[Row, ...]


def groups(trials: Sequence[Trial]) -> tuple[Group, ...]:
    """Return the trials by truth and budget, slowest truth first."""
    keys = sorted({(one.duel.truth, one.duel.budget_s) for one in trials})
    return tuple(_group([one for one in trials if (one.duel.truth, one.duel.budget_s) == key]) for key in keys)


def _group(trials: Sequence[Trial]) -> Group:
    duels = [one.duel for one in trials]
    truth, verdicts = duels[0].truth, [one.verdict for one in duels]
    intervals = [(one.low, one.high) for one in duels if one.low is not None and one.high is not None]
    seconds = sorted(one.measured_s for one in duels)
    rows = [_ours(truth, verdicts)]
    rows += [_row(name, truth, [rule(*one.samples) for one in trials]) for name, rule in RULES.items()]
    return Group(
        truth,
        duels[0].budget_s,
        Counter(verdicts),
        covered=Rate(sum(low <= truth <= high for low, high in intervals), len(intervals)),
        half_width=float(np.median([(high - low) / 2 for low, high in intervals])) if intervals else None,
        median_s=float(np.median(seconds)),
        longest_s=seconds[-1],
        rows=tuple(rows),
    )


def _ours(truth: float, verdicts: Sequence[str]) -> Row:
    """No-change is a claim too, and a wrong one where there is a change of its margin or more."""
    row = _row(OURS, truth, [_SAID.get(verdict, "same") for verdict in verdicts])
    missed = verdicts.count(Verdict.NO_CHANGE) if abs(truth) >= MARGIN else 0
    return replace(row, wrong=Rate(row.wrong.count + missed, row.wrong.of))


def _row(rule: str, truth: float, calls: Sequence[str]) -> Row:
    true = "faster" if truth > 0 else "slower" if truth < 0 else "same"
    wrong = sum(call not in (true, "same") for call in calls)
    return Row(rule, truth, Rate(calls.count(true), len(calls)), Rate(wrong, len(calls)))


@dataclass(frozen=True, slots=True)
class Resampled:
    """Duels put together from launches that were really measured, drawn with replacement and moved to ``truth``.

    ``covered``, ``half_width``: as in ``Group``. ``mean_s``: measuring until a duel stopped.
    """

    truth: float
    budget_s: float
    duels: int
    win: Rate
    loss: Rate
    no_change: Rate
    covered: Rate
    half_width: float
    mean_s: float


def drawn_from(trials: Sequence[Trial]) -> list[tuple[LaunchEstimate, float]]:
    """Return the launches that duels are resampled from, each with its error in log units. Where some have recorded
    steps, those without were read another way than duels are now, and are left out."""
    errors = [(one, float(one.log_ratio - np.log1p(each.duel.truth))) for each in trials for one in each.launches]
    return [pair for pair in errors if pair[0].aligned] or errors


def resample(
    trials: Sequence[Trial], truth: float, *, budget_s: float, duels: int, seed: int, policy: Policy | None = None
) -> Resampled:
    """Judge ``duels`` duels whose launches are drawn from those of all ``trials``, each less its own truth, plus
    ``truth``. No calibration is used. Raises InvalidError for fewer than 30 launches to draw from.
    """
    policy = policy or Policy()
    drawn = drawn_from(trials)
    pool = [(error, one.se or 0.0, one.seconds) for one, error in drawn]
    apart = [one.whole - one.log_ratio for one, _ in drawn if one.whole is not None]
    if len(pool) < LEAST_POOL:
        raise InvalidError(
            f"{len(pool)} launches to draw from", expected=f"{LEAST_POOL} or more", remedy="run more rounds"
        )
    values, errors, seconds = (np.asarray(column, dtype=np.float64) for column in zip(*pool, strict=True))
    launch_s = float(seconds.mean())
    rng = np.random.default_rng(seed)
    count = max(policy.min_launches, int(budget_s / launch_s + 1e-9))
    picked = rng.integers(0, len(pool), (duels, count))
    scenario = Scenario(effect=truth, launch_s=launch_s, budget_s=max(budget_s, count * launch_s))
    moved = values[picked] + np.log1p(truth)
    wholes = moved + np.asarray(apart)[picked] if len(apart) == len(pool) else None
    verdict, stopped, low, high = replay(moved, np.square(errors)[picked], scenario, policy, wholes)
    low, high = np.expm1(low), np.expm1(high)
    inside = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
    win, loss, same = (Rate(int((verdict == call).sum()), duels) for call in (1, -1, 0))
    return Resampled(
        truth, budget_s, duels, win, loss, same, Rate(int(inside.sum()), duels), float(np.median(high - low)) / 2,
        float(stopped.mean()) * launch_s,
    )  # fmt: skip


def spread(trials: Sequence[Trial]) -> tuple[float, float]:
    """Return how far launches scatter about the truth, and how much of it their blocks show; fractions (root mean
    square)."""
    launches = drawn_from(trials)
    errors = [error for _, error in launches]
    shown = [one.se for one, _ in launches if one.se is not None]
    rms = [float(np.sqrt(np.mean(np.square(values)))) if values else 0.0 for values in (errors, shown)]
    return relative_change(rms[0]), relative_change(rms[1])


def step_errors(trials: Sequence[Trial]) -> tuple[int, Mapping[str, float]]:
    """Return how many launches have recorded steps, and how far each way to read them scatters about the truth:
    fractions (root mean square)."""
    launches = [
        (np.log(np.array(one.steps_s[0])), np.log(np.array(one.steps_s[1])), float(np.log1p(each.duel.truth)))
        for each in trials
        for one in each.duel.launches
        if len(one.steps_s) == 2
    ]
    found = step_estimators.errors(launches) if launches else {}
    return len(launches), {name: relative_change(error) for name, error in found.items()}
