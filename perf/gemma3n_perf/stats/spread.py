"""What is known about the noise before a duel starts, and how far to trust it.

Opinion: three launches cannot tell their own spread, and a duel that believes a spread that came out
small by luck stops too early. A calibrated spread of the chip class and the blocks inside the
launches steady it, but only upwards: neither can make a duel more certain than its own launches.
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


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """What A/A duels of a chip class showed. Log units, so 0.005 is 0.5 %.

    ``effect`` is how far a whole session is off in 95 of 100, as estimated, which more launches do not average out; 0
    where the duels agreed as well as their launches let them. ``launch_sd`` is the spread of launches inside a session
    with ``launch_df`` degrees of freedom; ``largest`` the largest absolute A/A effect seen.
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
    df = sum(len(g) - 1 for g in groups)
    variance = max(sum(float(((g - g.mean()) ** 2).sum()) for g in groups) / df, 1e-14)
    means = np.array([g.mean() for g in groups])
    weights = np.array([len(g) for g in groups]) / variance
    between = max(0.0, (float(weights @ means**2) - len(groups)) / float(weights.sum()))
    return NoiseFloor(
        effect=float(stdtrit(len(groups), 0.975)) * math.sqrt(between),
        launch_sd=math.sqrt(variance),
        launch_df=df,
        duels=len(groups),
        largest=float(np.abs(means).max()),
        measured_on=measured_on,
    )


def prior_conflicts(own_variance: Floats, n: Floats | int, floor: NoiseFloor) -> NDArray[np.bool_]:
    """Whether the launches contradict the calibrated spread, by an F test at 1 % on each side.

    Being quieter than calibrated counts from 8 launches on: fewer that agree by luck are just what the
    calibration is there to steady.
    """
    df = np.asarray(n, dtype=np.float64) - 1.0
    ratio = own_variance / max(floor.launch_sd**2, 1e-14)
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
    Works elementwise on arrays of duels.
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
    total = np.maximum((centred**2).sum(axis=-1), n * 1e-14)
    r = (centred[..., 1:] * centred[..., :-1]).sum(axis=-1) / total
    limit = (-1.0 + float(ndtri(0.95)) * math.sqrt(n - 2)) / (n - 1)
    unbiased = np.minimum(r + 1.0 / n, 0.9)
    return np.where(r > limit, (1.0 + unbiased) / (1.0 - unbiased), 1.0), np.asarray(r)
