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
from scipy.special import fdtri, ndtri, stdtrit

from gemma3n_perf.errors import UsageError

Floats = NDArray[np.float64]
_CONFLICT = 0.01
_QUIET_DF = 7
_TINY_VARIANCE = 1e-14


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """What A/A duels of a chip class showed. Log units, so 0.005 is 0.5 %.

    ``effect``: how far a whole session is off in 95 of 100, as estimated, which more launches do not average out; 0
    where the duels agreed as well as their launches let them.
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
    & Laird (1986) about a known mean; ``effect`` is Student's t (D df) times its root.
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
    weights = np.array([len(g) for g in groups]) / variance
    between = max(0.0, (float(weights @ averages**2) - len(groups)) / float(weights.sum()))
    return NoiseFloor(
        effect=float(stdtrit(len(groups), 0.975)) * math.sqrt(between),
        launch_sd=math.sqrt(variance),
        launch_df=df,
        duels=len(groups),
        largest=float(np.abs(averages).max()),
        measured_on=measured_on,
    )


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
    inside the launches imply on their own. A calibration that the launches contradict is not used.
    """
    own = np.asarray(own_variance, dtype=np.float64)
    df = np.asarray(n, dtype=np.float64) - 1.0
    base = np.maximum(own, within)
    if prior is None or weight <= 0:
        return base, np.broadcast_to(df, base.shape)
    effective = min(weight, prior.launch_df)
    pooled = (effective * prior.launch_sd**2 + df * own) / (effective + df)
    conflict = prior_conflicts(own, n, prior)
    return np.where(conflict, base, np.maximum(base, pooled)), np.where(conflict, df, df + effective)


def serial_inflation(values: Sequence[float] | Floats) -> tuple[Floats, Floats]:
    """How much dependence between successive launches inflates the variance of their mean.

    ``values`` has launches on its last axis. Returns ``(inflation, lag-1 correlation)`` without that
    axis. The inflation is 1 unless the correlation is above its 95 % point for independent launches
    (Anderson 1942), then ``(1 + r) / (1 - r)`` of a first-order autoregression, ``r`` with its bias of
    -1/n removed. Fewer than 8 launches cannot show dependence: (1, 0).
    """
    x = np.asarray(values, dtype=np.float64)
    n = x.shape[-1]
    if n < 8:
        return np.ones(x.shape[:-1]), np.zeros(x.shape[:-1])
    centred = x - x.mean(axis=-1, keepdims=True)
    total = np.maximum((centred**2).sum(axis=-1), n * _TINY_VARIANCE)
    r = (centred[..., 1:] * centred[..., :-1]).sum(axis=-1) / total
    limit = (-1.0 + float(ndtri(0.95)) * math.sqrt(n - 2)) / (n - 1)
    unbiased = np.minimum(r + 1.0 / n, 0.9)
    return np.where(r > limit, (1.0 + unbiased) / (1.0 - unbiased), 1.0), np.asarray(r)


def student(variance: Floats, n: int, alpha: float, inflation: Floats | float = 1.0) -> Floats:
    """Half width of Student's interval at level 1 - ``alpha`` for the mean of ``n`` values of sample ``variance``.

    ``inflation`` multiplies the variance of the mean.
    """
    spread = np.sqrt(np.maximum(variance, _TINY_VARIANCE) * inflation / n)
    return np.asarray(-stdtrit(n - 1, alpha / 2.0) * spread)


@dataclass(frozen=True, slots=True)
class HalfWidths:
    """Half widths of the two intervals of a look, log units.

    ``plain``: the one that is reported, at level 1 - alpha.
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
    alpha: float,
    inflation: Floats | float = 1.0,
    within: Floats | float = 0.0,
    prior: NoiseFloor | None = None,
    prior_weight: int = 0,
) -> HalfWidths:
    """Half widths of both intervals after ``launches`` launches (2 or more) of sample variance ``own_variance``.

    ``tail`` is the two-sided nominal error of this look, ``inflation`` the factor for dependent
    launches; ``within``, ``prior`` and ``prior_weight`` are those of ``steady_variance``.
    """
    own = np.maximum(np.asarray(own_variance, dtype=np.float64), _TINY_VARIANCE)
    steady, df = steady_variance(own, launches, prior=prior, weight=prior_weight, within=within)
    plain = student(own, launches, alpha, inflation)
    if tail > 0.0:
        repeated = np.maximum(-stdtrit(df, tail / 2.0) * np.sqrt(steady * inflation / launches), plain)
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
