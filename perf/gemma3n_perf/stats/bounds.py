"""The two intervals of a look, the plain one that is reported and the repeated one that decides, and the room that
whole times leave.

Opinion: they are computed in one place, elementwise on arrays, so that the judge and the simulation
study of it run the same lines.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from gemma3n_perf.stats.spread import Floats, NoiseFloor, steady_variance

_TINY_VARIANCE = 1e-14


@dataclass(frozen=True, slots=True)
class HalfWidths:
    """Half widths, log units: ``plain`` at level 1 - alpha, ``repeated`` valid over all looks and never narrower.

    ``sd`` is the launch spread that decisions rest on.
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
    launches; ``within``, ``prior`` and ``prior_weight`` are those of ``stats.spread.steady_variance``.
    """
    own = np.maximum(np.asarray(own_variance, dtype=np.float64), _TINY_VARIANCE)
    steady, df = steady_variance(own, launches, prior=prior, weight=prior_weight, within=within)
    plain = -stdtrit(launches - 1, alpha / 2.0) * np.sqrt(own * inflation / launches)
    if tail > 0.0:
        repeated = np.maximum(-stdtrit(df, tail / 2.0) * np.sqrt(steady * inflation / launches), plain)
    else:
        repeated = np.full_like(plain, np.inf)
    return HalfWidths(np.asarray(plain), repeated, np.sqrt(steady * inflation))


def room(wholes: Floats, *, alpha: float, margin: float, most: float) -> Floats:
    """The effect (a fraction) that whole times leave room for, where that speaks against no-change; else NaN.

    ``wholes`` are log ratios of whole times, launches along the last axis. Their Student interval may reach no further
    than ``most``, or ``margin`` where that is wider, and may not lie wholly beyond ``margin``.
    """
    n = wholes.shape[-1]
    mean = wholes.mean(axis=-1)
    half = -stdtrit(n - 1, alpha / 2.0) * np.sqrt(np.maximum(wholes.var(axis=-1, ddof=1), _TINY_VARIANCE) / n)
    low, high = np.expm1(mean - half), np.expm1(mean + half)
    widest = np.where(-low > high, low, high)
    against = (low > margin) | (high < -margin) | (np.abs(widest) > max(most, margin))
    return np.where(against, widest, np.nan)
