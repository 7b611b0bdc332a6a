"""Interleaved rounds: every variant once a round, in random order, and medians over rounds.

Opinion: on a machine whose speed swings by a quarter within a second only what was measured side by side compares, and
only an interval that assumes nothing of the noise's shape can be trusted.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.types import Estimate

LEAST_ROUNDS = 6
"""Fewer give no 95 % interval for a median: 2 x 0.5^6 is 3 %."""

Note = Callable[[str], None]
_T = TypeVar("_T")


def interleaved(
    variants: Mapping[str, Callable[[], _T]],
    rounds: int,
    *,
    rng: random.Random,
    note: Note = lambda text: None,
    enough: Callable[[int], bool] = lambda done: False,
) -> dict[str, list[_T]]:
    """Call every variant once a round, in an order drawn anew; returns each one's results, in step by round.

    ``enough`` may end it early, from LEAST_ROUNDS on. Raises UsageError for fewer rounds than an interval needs.
    """
    if rounds < LEAST_ROUNDS:
        raise UsageError(f"{rounds} rounds", expected=f"{LEAST_ROUNDS} or more: fewer give no 95 % interval")
    found: dict[str, list[_T]] = {name: [] for name in variants}
    for done in range(rounds):
        if done >= LEAST_ROUNDS and enough(done):
            break
        note(f"round {done + 1} of {rounds}")
        for name in rng.sample(list(variants), len(variants)):
            found[name].append(variants[name]())
    return found


def estimate(values: Sequence[float]) -> Estimate:
    """Median of one value a round, with the sign test's interval (order statistics).

    Raises UsageError for fewer than LEAST_ROUNDS values.
    """
    if len(values) < LEAST_ROUNDS:
        raise UsageError(f"{len(values)} rounds to estimate from", expected=f"{LEAST_ROUNDS} or more")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    low, high = sign_test_interval(len(ordered))
    return Estimate(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), len(ordered))


def sign_test_interval(n: int) -> tuple[int, int]:
    """Indices of the order statistics that hold the median of ``n`` values with at least 95 % confidence."""
    from scipy.stats import binom

    k = int(binom.ppf(0.025, n, 0.5))
    low = max(k - 1, 0)
    return low, n - 1 - low
