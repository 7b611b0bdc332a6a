"""Looking often without fooling oneself: group-sequential critical values with a spent error budget.

A duel may be looked at after every launch, and the error of all looks together stays below ``alpha``. The
budget is spent as a function of measuring time (Lan & DeMets 1983), so neither
the number of looks nor their spacing has to be known in advance. Critical values come from the
recursion of Armitage, McPherson & Rowe (1969) for Brownian increments and are carried over to
Student's t through their tail probabilities (Pocock 1977; Jennison & Turnbull 2000, chapter 11).
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr, stdtrit

from gemma3n_perf.errors import UsageError

_NODES = 96
_FARTHEST = 12.0
_GRID, _WEIGHTS = np.polynomial.legendre.leggauss(_NODES)
_INV_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)


def tail_probabilities(
    counts: Sequence[int], fractions: Sequence[float], alpha: float, rho: float
) -> tuple[float, ...]:
    """Two-sided nominal tail probability of each look, so that all looks together err at most ``alpha``.

    ``counts`` are the launches in hand at each look (rising), ``fractions`` the share of the budget
    used by then (0..1, not falling). ``alpha * fraction ** rho`` of the error is spent by then (Kim & DeMets 1987):
    ``rho`` 1 is close to Pocock's boundary, 3 to O'Brien & Fleming's.
    Returns one probability per look, in the order of the looks.
    Raises UsageError if the looks are not in order.
    """
    if len(counts) != len(fractions) or not counts:
        raise UsageError(f"{len(counts)} launch counts for {len(fractions)} budget fractions")
    if any(b <= a for a, b in itertools.pairwise(counts)) or counts[0] < 1:
        raise UsageError(f"launch counts {tuple(counts)} do not rise", expected="each look has more launches")
    if any(b < a for a, b in itertools.pairwise(fractions)):
        raise UsageError(f"budget fractions {tuple(fractions)} fall", expected="measuring time only grows")
    if not 0 < alpha < 1 or rho <= 0:
        raise UsageError(f"alpha {alpha} and rho {rho}", expected="0 < alpha < 1 and rho > 0")
    return nominal_tails(counts, [alpha * min(max(f, 0.0), 1.0) ** rho for f in fractions])


def nominal_tails(counts: Sequence[int], cumulative: Sequence[float]) -> tuple[float, ...]:
    """Two-sided nominal tail of each look, given the ``cumulative`` error allowed up to it (rising, 0..1)."""
    rows, errors = tuple(counts), tuple(cumulative)
    return tuple(_state(rows[: k + 1], errors[: k + 1])[0] for k in range(len(rows)))


def critical(tail: float, df: float) -> float:
    """Student's t critical value for a two-sided tail probability; infinite where nothing is spent."""
    if tail <= 0.0:
        return math.inf
    return float(-stdtrit(df, tail / 2.0))


@lru_cache(maxsize=4096)
def _state(
    counts: tuple[int, ...], cumulative: tuple[float, ...]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Nominal tail of the last look, and the density of paths still inside: (tail, nodes, density * weights)."""
    n = counts[-1]
    if len(counts) == 1:
        increment, nodes, mass, step = cumulative[0], np.zeros(1), np.ones(1), float(n)
    else:
        _, nodes, mass = _state(counts[:-1], cumulative[:-1])
        increment, step = cumulative[-1] - cumulative[-2], float(n - counts[-2])
    scale, far = math.sqrt(step), _FARTHEST * math.sqrt(n)

    def crossing(bound: float) -> float:
        return float(mass @ (ndtr((nodes - bound) / scale) + ndtr((-nodes - bound) / scale)))

    if increment <= crossing(far):
        bound, tail = far, 0.0
    else:
        bound = float(brentq(lambda b: crossing(b) - increment, 0.0, far, xtol=1e-10))
        tail = 2.0 * float(ndtr(-bound / math.sqrt(n)))
    reach = min(bound, 9.0 * math.sqrt(n))
    grid = reach * _GRID
    kernel = np.exp(-0.5 * ((grid[:, None] - nodes[None, :]) / scale) ** 2) * (_INV_SQRT_2PI / scale)
    return tail, grid, (kernel @ mass) * (_WEIGHTS * reach)
