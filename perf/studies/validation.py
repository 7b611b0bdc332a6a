"""How often the judge was right, over duels whose truth was planted.

A rate without the number it is a rate of is an anecdote, so every rate carries its count and its interval. Duels of one
round share their launches, so a hundred of them are worth fewer: the interval counts what they are worth. Other tools'
rules are in ``studies.equal_time``.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from gemma3n_perf.duel.validation_record import PowerDuel
from gemma3n_perf.duel.validation_round import launch_estimates
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.stats.estimates import LaunchEstimate, relative_change
from gemma3n_perf.stats.policy import MARGIN, Policy
from gemma3n_perf.stats.steps import estimate_steps
from gemma3n_perf.stats.verdicts import Verdict
from studies import step_estimators
from studies.simulation import Scenario, replay

OURS = "this suite"
LEAST_POOL, LEAST_ROUNDS, _LEAST_LAUNCHES = 30, 5, 4
"""Launches, rounds of them, and launches of a round that duels may be resampled from: fewer would draw the same ones
over and over."""


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
    """``count`` of ``of``, which are ``worth`` so many independent ones; 95 % interval of Clopper & Pearson (1934)."""

    count: int
    of: int
    worth: float | None = None

    @property
    def share(self) -> float:
        """The rate, 0..1."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        if not self.of:
            return 0.0, 1.0
        of = self.of if self.worth is None else min(self.worth, self.of)
        count = self.share * of
        low = 0.0 if count == 0 else float(beta.ppf(0.025, count, of - count + 1))
        high = 1.0 if count == of else float(beta.ppf(0.975, count + 1, of - count))
        return low, high


@dataclass(frozen=True, slots=True)
class Group:
    """All trials of one truth and budget. Seconds are of measuring.

    ``covered``: how many of the intervals hold the truth. ``half_width``: half of the median interval, in effect; None
    where no trial has one. ``right`` and ``wrong``: how often the true direction was named, and a wrong one claimed.
    ``rounds``: how many the trials come from.
    """

    truth: float
    budget_s: float
    verdicts: Mapping[str, int]
    covered: Rate
    half_width: float | None
    median_s: float
    longest_s: float
    right: Rate
    wrong: Rate
    rounds: int


def correlation(trials: Sequence[Trial]) -> float:
    """Return how alike the errors of one round's duels are: the intraclass correlation, 0 to 1.

    One-way analysis of variance over rounds (Shrout & Fleiss 1979); 0 where no round has two duels.
    """
    rounds: dict[int, list[float]] = {}
    for one in trials:
        if one.duel.effect is not None:
            error = float(np.log1p(one.duel.effect) - np.log1p(one.duel.truth))
            rounds.setdefault(one.duel.round, []).append(error)
    sizes = np.array([len(errors) for errors in rounds.values()], dtype=np.float64)
    total, count = float(sizes.sum()), len(sizes)
    if count < 2 or total == count:
        return 0.0
    averages = np.array([np.mean(errors) for errors in rounds.values()])
    grand = float(np.sum(sizes * averages) / total)
    between = float(np.sum(sizes * np.square(averages - grand))) / (count - 1)
    within = sum(float(np.sum(np.square(np.array(errors) - np.mean(errors)))) for errors in rounds.values())
    within /= total - count
    size = (total - float(np.sum(np.square(sizes))) / total) / (count - 1)
    whole = between + (size - 1) * within
    return min(max((between - within) / whole, 0.0), 1.0) if whole > 0 else 0.0


def slower(trials: Sequence[Trial]) -> dict[int, tuple[int, float, float, float]]:
    """Return by round: launches whose steps were recorded, how much longer the candidate's process took beside what was
    planted, in typical times, the standard deviation of that, and the same in whole times. Log ratios."""
    found: dict[int, list[tuple[float, float]]] = {}
    for one in trials:
        # Where the baseline was to be slowed, the processes have each other's names.
        sign = 1 if one.duel.planted >= 0 else -1
        for each in one.duel.launches:
            if each.steps_s:
                launch = estimate_steps(*each.steps_s, seconds=each.seconds)
                errors = [sign * (math.log1p(one.duel.truth) - (x or 0.0)) for x in (launch.log_ratio, launch.whole)]
                found.setdefault(one.duel.round, []).append((errors[0], errors[1]))
    errors_of = {number: np.array(each) for number, each in found.items() if len(each) > 1}
    return {
        number: (len(each), float(each[:, 0].mean()), float(each[:, 0].std(ddof=1)), float(each[:, 1].mean()))
        for number, each in errors_of.items()
    }


def worth(trials: Sequence[Trial], alike: float) -> float:
    """Return how many independent duels these are worth (Kish's design effect); ``alike`` is the correlation."""
    sizes = np.array(list(Counter(one.duel.round for one in trials).values()), dtype=np.float64)
    return float(len(trials) / (1 + (np.sum(np.square(sizes)) / len(trials) - 1) * alike))


def groups(trials: Sequence[Trial]) -> tuple[Group, ...]:
    """Return the trials by truth and budget, slowest truth first."""
    keys = sorted({(one.duel.truth, one.duel.budget_s) for one in trials})
    alike = correlation(trials)
    return tuple(_group([one for one in trials if (one.duel.truth, one.duel.budget_s) == key], alike) for key in keys)


def _group(trials: Sequence[Trial], alike: float) -> Group:
    duels = [one.duel for one in trials]
    truth, verdicts, of = duels[0].truth, [one.verdict for one in duels], worth(trials, alike)
    intervals = [(one.low, one.high) for one in duels if one.low is not None and one.high is not None]
    seconds = sorted(one.measured_s for one in duels)
    true = "win" if truth > 0 else "loss"
    claims = [verdict for verdict in verdicts if verdict in ("win", "loss")]
    wrong = sum(verdict != true or truth == 0 for verdict in claims)
    # No-change is a claim too, and a wrong one where there is a change of its margin or more.
    wrong += verdicts.count(Verdict.NO_CHANGE) if abs(truth) >= MARGIN else 0
    right = claims.count(true) if truth else len(verdicts) - len(claims)
    return Group(
        truth,
        duels[0].budget_s,
        Counter(verdicts),
        covered=Rate(sum(low <= truth <= high for low, high in intervals), len(intervals), of),
        half_width=float(np.median([(high - low) / 2 for low, high in intervals])) if intervals else None,
        median_s=float(np.median(seconds)),
        longest_s=seconds[-1],
        right=Rate(right, len(verdicts), of),
        wrong=Rate(wrong, len(verdicts), of),
        rounds=len({one.round for one in duels}),
    )


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
    """Return all launches that were read as duels are now, each with its error in log units: where some have recorded
    steps, those without were read another way, and are left out."""
    return [pair for pairs in _by_round(trials) for pair in pairs]


def _by_round(trials: Sequence[Trial], *, longest: bool = False) -> list[list[tuple[LaunchEstimate, float]]]:
    rounds: dict[int, list[tuple[LaunchEstimate, float]]] = {}
    aligned = any(one.aligned for each in trials for one in each.launches)
    # Duels of a round share its launches: the longest has them all, and each once.
    for each in sorted(trials, key=lambda one: len(one.launches)) if longest else trials:
        if longest:
            rounds.pop(each.duel.round, None)
        errors = [(one, float(one.log_ratio - np.log1p(each.duel.truth))) for one in each.launches]
        rounds.setdefault(each.duel.round, []).extend(pair for pair in errors if pair[0].aligned or not aligned)
    return [pairs for pairs in rounds.values() if pairs]


def enough(trials: Sequence[Trial]) -> bool:
    """Whether duels can be resampled from these."""
    kept = [pairs for pairs in _by_round(trials, longest=True) if len(pairs) >= _LEAST_LAUNCHES]
    return len(kept) >= LEAST_ROUNDS and sum(map(len, kept)) >= LEAST_POOL


def _centred(rounds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return errors whose rounds lie apart as far as rounds do, about 0.

    The averages of rounds differ by that and by chance, since a round has few launches: to draw from a round as it is
    would count the chance twice. So averages are drawn in by what chance explains, and launches about their round's
    average out by what its own few take away (variance components, one-way).
    """
    averages = np.array([errors.mean() for errors in rounds])
    chance = float(np.mean([errors.var(ddof=1) / len(errors) for errors in rounds]))
    seen = float(averages.var(ddof=1))
    kept = math.sqrt(max(seen - chance, 0.0) / seen) if seen > 0 else 0.0
    parts = [
        kept * (mean - averages.mean()) + (errors - mean) * math.sqrt(len(errors) / (len(errors) - 1))
        for errors, mean in zip(rounds, averages, strict=True)
    ]
    return np.concatenate(parts)


def resample(
    trials: Sequence[Trial], truth: float, *, budget_s: float, duels: int, seed: int, policy: Policy | None = None
) -> Resampled:
    """Judge ``duels`` duels, each of the launches of one round, drawn like the round with replacement.

    Launches are taken less their own truth, centred (``_centred``), plus ``truth``. No calibration is used. Raises
    InvalidError for too few launches or rounds to draw from.
    """
    policy = policy or Policy()
    rounds = [pairs for pairs in _by_round(trials, longest=True) if len(pairs) >= _LEAST_LAUNCHES]
    drawn = [pair for pairs in rounds for pair in pairs]
    if not enough(trials):
        raise InvalidError(
            f"{len(drawn)} launches of {len(rounds)} rounds to draw from",
            expected=f"{LEAST_POOL} or more, of {LEAST_ROUNDS} or more",
            remedy="run more rounds",
        )
    centred = _centred([np.array([error for _, error in pairs]) for pairs in rounds])
    pool = [(error, one.se or 0.0, one.seconds) for error, (one, _) in zip(centred, drawn, strict=True)]
    apart = [one.whole - one.log_ratio for one, _ in drawn if one.whole is not None]
    values, errors, seconds = (np.asarray(column, dtype=np.float64) for column in zip(*pool, strict=True))
    launch_s = float(seconds.mean())
    rng = np.random.default_rng(seed)
    count = max(policy.min_launches, int(budget_s / launch_s + 1e-9))
    sizes = np.array([len(pairs) for pairs in rounds])
    chosen = rng.integers(0, len(rounds), duels)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    picked = starts[chosen, None] + (rng.random((duels, count)) * sizes[chosen, None]).astype(int)
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
