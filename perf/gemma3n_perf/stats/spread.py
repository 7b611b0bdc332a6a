"""How far launches scatter, and the intervals that follow.

Three launches cannot tell their own spread, and a duel that believes a spread that came out
small by luck stops too early. A calibrated spread of the chip class and the blocks inside the
launches steady it, but only upwards: neither can make a duel more certain than its own launches.
Everything works elementwise on arrays of duels, so that the judge and the simulation study of it run the same lines.
"""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtri, ndtri, stdtrit

from gemma3n_perf.errors import UsageError

Floats = NDArray[np.float64]
_CONFLICT = 0.01
_QUIET_DF = 7
_TINY_VARIANCE = 1e-14
_LEAST_SERIES = 4
_LEAST_HALF, _DRIFT = 3, 0.01
_DIFFERENT = 0.02
_WALK, _WALK_LAGS = 0.4, (2, 3, 4)

DEPENDENT, PERHAPS_DEPENDENT = (0.05, 0.01), (0.2, 0.05)
"""Chances of independent launches to be taken for dependent ones, and for a walk: where a change is claimed, and where
none is, which takes less for dependence, because it errs most often there."""


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """What A/A duels of a chip class showed. Log units, so 0.005 is 0.5 %.

    ``effect``: how far a whole session is off in 95 of 100, as estimated, which more launches do not average out; 0
    where the duels agreed as well as their launches let them (F test at 2 %): see ``noise_limit``.
    ``launch_sd``: the spread of launches inside a session, with ``launch_df`` degrees of freedom.
    ``duels``: how many there were. ``largest``: the largest absolute A/A effect among them.
    """

    effect: float
    launch_sd: float
    launch_df: int
    duels: int
    largest: float
    measured_on: dt.date


def noise_floor(duels: Sequence[Sequence[float]], measured_on: dt.date) -> NoiseFloor:
    """Estimate the noise floor from the launch log ratios of A/A duels, one sequence per session.

    The truth of an A/A duel is zero, so with pooled launch variance ``s2`` and ``w_j = n_j / s2`` the
    session variance is ``max(0, (sum w_j m_j^2 - D) / sum w_j)``, the moment estimator of DerSimonian
    & Laird (1986) about a known mean; ``effect`` is Student's t (D df) times its root, where the duels differ by more
    than their launches explain, by an F test at 2 %: without it, six duels that do not differ would often give a floor.
    Raises UsageError for fewer than 2 duels or a duel of fewer than 2 launches.
    """
    if len(duels) < 2 or min(len(d) for d in duels) < 2:
        raise UsageError(
            f"a noise floor from {len(duels)} A/A duels", expected="2 or more duels of 2 or more launches each"
        )
    groups = [np.asarray(d, dtype=np.float64) for d in duels]
    variance, df = pooled_variance(groups)
    variance = max(variance, _TINY_VARIANCE)
    averages = np.array([g.mean() for g in groups])
    apart, weight = _apart(groups, variance)
    differ = apart / len(groups) > fdtri(len(groups), df, 1.0 - _DIFFERENT)
    between = (apart - len(groups)) / weight if differ else 0.0
    return NoiseFloor(
        effect=float(stdtrit(len(groups), 0.975)) * math.sqrt(between),
        launch_sd=math.sqrt(variance),
        launch_df=df,
        duels=len(groups),
        largest=float(np.abs(averages).max()),
        measured_on=measured_on,
    )


def noise_limit(duels: Sequence[Sequence[float]]) -> float:
    """What ``noise_floor`` may be at most, with 95 % confidence, log units: few duels exclude little.

    From the chi-square distribution of the duels' scatter about zero, taken as one of equal launches. Raises UsageError
    as ``noise_floor`` does.
    """
    groups = [np.asarray(d, dtype=np.float64) for d in duels]
    apart, weight = _apart(groups, noise_floor(duels, dt.date.min).launch_sd ** 2)
    most = max(0.0, apart / float(chdtri(len(groups), 0.95)) - 1.0) * len(groups) / weight
    return float(ndtri(0.975)) * math.sqrt(most)


def _apart(groups: Sequence[Floats], variance: float) -> tuple[float, float]:
    """The weighted squares of the means of ``groups``, in what ``variance`` explains, and the sum of weights."""
    weights = np.array([len(g) for g in groups]) / variance
    return float(weights @ np.array([g.mean() for g in groups]) ** 2), float(weights.sum())


def pooled_variance(groups: Sequence[Floats]) -> tuple[float, int]:
    """Return the variance within groups of 2 or more values, each about its own mean, and its degrees of freedom."""
    df = sum(len(g) - 1 for g in groups)
    return sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / df, df


def prior_conflicts(own_variance: Floats, n: Floats | int, floor: NoiseFloor) -> NDArray[np.bool_]:
    """Whether the launches contradict the calibrated spread, by an F test at 1 % on each side.

    Being quieter than calibrated counts from 8 launches on: fewer that agree by luck are just what the
    calibration is there to steady.
    """
    df = np.asarray(n, dtype=np.float64) - 1.0
    ratio = own_variance / max(floor.launch_sd**2, _TINY_VARIANCE)
    low, high = fdtri(df, floor.launch_df, _CONFLICT), fdtri(df, floor.launch_df, 1.0 - _CONFLICT)
    return np.asarray(((ratio < low) & (df >= _QUIET_DF)) | (ratio > high))


def steady_variance(
    own_variance: Floats | float,
    n: Floats | int,
    *,
    prior: NoiseFloor | None,
    weight: int,
    within: Floats | float = 0.0,
) -> tuple[Floats, Floats]:
    """Launch variance used for stopping decisions, and its degrees of freedom.

    ``max(own, pooled, within)``: ``pooled`` shrinks towards the calibrated spread as if that were
    ``weight`` launches (a scaled inverse chi-square prior), ``within`` is the variance that the blocks
    inside the launches imply on their own. A calibration that the launches contradict is not used. Where they are
    noisier than ``pooled``, it lends them degrees of freedom by the square of its share of their variance only: one
    that is too small would otherwise narrow the interval.
    """
    own = np.asarray(own_variance, dtype=np.float64)
    df = np.asarray(n, dtype=np.float64) - 1.0
    base = np.maximum(own, within)
    if prior is None or weight <= 0:
        return base, np.broadcast_to(df, base.shape)
    effective = min(weight, prior.launch_df)
    pooled = (effective * prior.launch_sd**2 + df * own) / (effective + df)
    conflict = prior_conflicts(own, n, prior)
    lent = effective * np.minimum(pooled / np.maximum(base, _TINY_VARIANCE), 1.0) ** 2
    return np.where(conflict, base, np.maximum(base, pooled)), np.where(conflict, df, df + lent)


def serial_inflation(
    values: Sequence[float] | Floats, errors: tuple[float, float] = DEPENDENT
) -> tuple[Floats, Floats]:
    """How much dependence between successive launches inflates the variance of their mean.

    ``values`` has launches on its last axis. Returns ``(inflation, serial correlation)`` without that axis. The
    correlation is 1 less half of von Neumann's ratio (1941), which tells a random walk from independent launches best.
    Where independent ones reach it with less than the first chance of ``errors``, the inflation is
    ``(1 + r) / (1 - r)`` of a first-order autoregression; with less than the second, it is 2n, that of a walk; else 1.
    What neighbours alone share is no walk, however many show it: one has a correlation of 0.4, too, or launches
    two to four apart that resemble each other more than independent ones do with the second chance.
    Fewer than 4 launches cannot show dependence: (1, 0).
    """
    x = np.asarray(values, dtype=np.float64)
    n = x.shape[-1]
    if n < _LEAST_SERIES:
        return np.ones(x.shape[:-1]), np.zeros(x.shape[:-1])
    r = _resemblance(x, 1)
    some, walk = (float(ndtri(1.0 - error)) * math.sqrt((n - 2) / (n * n - 1.0)) for error in errors)
    likely = np.where(r > some, (1.0 + r) / (1.0 - np.minimum(r, 0.9)), 1.0)
    lasts = r > _WALK
    if walk < _WALK:  # else what reaches the one reaches the other
        apart = np.mean([_resemblance(x, lag) for lag in _WALK_LAGS], axis=0)
        lasts |= apart > float(ndtri(1.0 - errors[1])) / math.sqrt(len(_WALK_LAGS) * n)
    return np.where((r > walk) & lasts, 2.0 * n, likely), r


def _resemblance(x: Floats, lag: int) -> Floats:
    """Return 1 less half of the mean squared difference of launches ``lag`` apart, as a share of their variance."""
    variance = x.var(axis=-1, ddof=1)
    squares = ((x[..., lag:] - x[..., :-lag]) ** 2).mean(axis=-1)
    return np.where(variance > _TINY_VARIANCE, 1.0 - squares / (2.0 * np.maximum(variance, _TINY_VARIANCE)), 0.0)


def halves_differ(values: Sequence[float] | Floats) -> NDArray[np.bool_]:
    """Whether the first and second half of the launches, along the last axis, disagree by Welch's t test at 1 %."""
    x = np.asarray(values, dtype=np.float64)
    half = x.shape[-1] // 2
    if half < _LEAST_HALF:
        return np.zeros(x.shape[:-1], dtype=bool)
    first, second = x[..., :half], x[..., -half:]
    spread = (first.var(axis=-1, ddof=1) + second.var(axis=-1, ddof=1)) / half
    gap = np.abs(first.mean(axis=-1) - second.mean(axis=-1))
    return np.asarray(gap > -stdtrit(2 * half - 2, _DRIFT / 2) * np.sqrt(np.maximum(spread, _TINY_VARIANCE)))


def student(variance: Floats, n: int, alpha: float, inflation: Floats | float = 1.0) -> Floats:
    """Half width of Student's interval at level 1 - ``alpha`` for the mean of ``n`` values of sample ``variance``.

    ``inflation`` multiplies the variance of the mean.
    """
    spread = np.sqrt(np.maximum(variance, _TINY_VARIANCE) * inflation / n)
    return np.asarray(-stdtrit(n - 1, alpha / 2.0) * spread)


@dataclass(frozen=True, slots=True)
class HalfWidths:
    """Half widths of the two intervals of a look, log units.

    ``plain``: the one that is reported, at the error asked for.
    ``repeated``: the one that decides, valid over all looks together and never narrower.
    ``sd``: the launch spread that decisions rest on.
    """

    plain: Floats
    repeated: Floats
    sd: Floats


def half_widths(
    own_variance: Floats | float,
    launches: int,
    *,
    tail: float,
    reported: float,
    inflation: Floats | float = 1.0,
    within: Floats | float = 0.0,
    prior: NoiseFloor | None = None,
    prior_weight: int = 0,
    sessions: float = 0.0,
) -> HalfWidths:
    """Half widths of both intervals after ``launches`` launches (2 or more) of sample variance ``own_variance``.

    ``tail`` is the two-sided nominal error of this look, ``reported`` that of the plain interval, ``inflation`` the
    factor for dependent launches; ``within``, ``prior`` and ``prior_weight`` are those of ``steady_variance``;
    ``sessions`` is the variance that sessions add to the mean.
    """
    own = np.maximum(np.asarray(own_variance, dtype=np.float64), _TINY_VARIANCE)
    steady, df = steady_variance(own, launches, prior=prior, weight=prior_weight, within=within)
    plain: Floats = -stdtrit(launches - 1, reported / 2.0) * np.sqrt(own * inflation / launches + sessions)
    if tail > 0.0:
        repeated = np.maximum(-stdtrit(df, tail / 2.0) * np.sqrt(steady * inflation / launches + sessions), plain)
    else:
        repeated = np.full_like(plain, np.inf)
    return HalfWidths(plain, repeated, np.sqrt(steady * inflation))


def unexcluded(wholes: Floats, *, alpha: float, margin: float, most: float) -> Floats:
    """The effect (a fraction) that whole times do not exclude, where that speaks against no-change; else NaN.

    ``wholes`` are log ratios of whole times, launches along the last axis. Their Student interval may reach no further
    than ``most``, or ``margin`` where that is wider, and may not lie wholly beyond ``margin``.
    """
    mean, half = wholes.mean(axis=-1), student(wholes.var(axis=-1, ddof=1), wholes.shape[-1], alpha)
    low, high = np.expm1(mean - half), np.expm1(mean + half)
    widest = np.where(-low > high, low, high)
    against = (low > margin) | (high < -margin) | (np.abs(widest) > max(most, margin))
    return np.where(against, widest, np.nan)
