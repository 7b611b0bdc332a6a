"""Student's t test of one sample: how probable its mean is where the true one is another."""

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtr

LEAST_SD = 1e-4
"""Of values that are all the same there is still some doubt."""


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of two values or more, and its standard error."""
    return statistics.fmean(values), max(statistics.stdev(values), LEAST_SD) / math.sqrt(len(values))


def chance_of(values: Sequence[float], least: float = 0.0) -> float:
    """Return how probable values as large as these are where their mean is ``least``."""
    mean, error = mean_and_error(values)
    return float(stdtr(len(values) - 1, (least - mean) / error))
