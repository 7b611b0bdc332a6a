"""From the times of blocks in pairs, or of their single steps, to one number per launch.

On a shared host a core has two speeds or more, and changes between them within a block. The scatter of steps is then
the host's, and both arms have it: the times of one arm are those of the other, shifted. The estimate is the shift that
lays one over the other. Whether the arms scatter alike is tested too: an arm that is slow now and then is slower.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gemma3n_perf.errors import InvalidError
from gemma3n_perf.stats.estimates import LaunchEstimate, estimate_launch, log_times
from gemma3n_perf.stats.spread import Floats

_GROUPS = 20
_CLIMB, _SETTLED = 500, 1e-6
_SHARPEST = 1e-3
_TRIMMED = 0.4
_NORMAL_MAD = 0.6745
_SHAPE_ALPHA, _SLOWER_ALPHA, _LEAST_GAP, _MUCH = 0.002, 0.01, 0.005, 0.02
_LEAST_LAUNCHES = 3


def estimate(
    baseline_s: Sequence[float],
    candidate_s: Sequence[float],
    *,
    steps: Sequence[Sequence[Sequence[float]]] = (),
    seconds: float,
    session: int = 0,
) -> LaunchEstimate:
    """Estimate one launch: from ``steps`` of the blocks of both arms where they were recorded, else from the blocks.

    Blocks come in pairs, the n-th of one arm beside the n-th of the other; where counts differ, they are compared as
    two samples.
    """
    if len(steps) == 2 and all(steps):
        return estimate_steps(steps[0], steps[1], seconds=seconds, session=session)
    if len(baseline_s) != len(candidate_s) or len(baseline_s) < 2:
        return estimate_launch(baseline_s, candidate_s, seconds=seconds, session=session)
    base, cand = log_times(baseline_s, "baseline")[:, None], log_times(candidate_s, "candidate")[:, None]
    log_ratio, se = _trimmed(base, cand)
    return LaunchEstimate(log_ratio, float(seconds), se, session, *_whole(base, cand))


def estimate_steps(
    baseline_s: Sequence[Sequence[float]], candidate_s: Sequence[Sequence[float]], *, seconds: float, session: int = 0
) -> LaunchEstimate:
    """Estimate one launch's log ratio from the seconds of each step of its blocks, (blocks, steps) of both arms.

    The n-th step of a block is compared with the n-th steps of the other arm's blocks in its own pair and in the pairs
    beside it. The log ratio is the mode of these differences: the shift, uphill from their median, that maximises the
    sum of exp(-(difference - shift)^2 / 2 h^2) (Welsch's loss, Holland & Welsch 1977; mean shift, Comaniciu & Meer
    2002), with h the scatter of neighbouring steps of one block. Steps that met a core of the same speed agree, and
    those that did not, or stalled, have next to no weight. The standard error is the infinitesimal jackknife's over
    pairs, or twenty groups of neighbouring ones (Jaeckel 1972). ``whole`` is the ratio of whole times: every step
    counts for what it took.
    Raises InvalidError for blocks that do not match, fewer than two pairs, or times that are not positive and finite.
    """
    base = log_times(list(chain.from_iterable(baseline_s)), "baseline")
    cand = log_times(list(chain.from_iterable(candidate_s)), "candidate")
    pairs, steps = len(baseline_s), len(baseline_s[0]) if baseline_s else 0
    lengths = {len(block) for block in (*baseline_s, *candidate_s)}
    if pairs < 2 or len(candidate_s) != pairs or lengths != {steps} or not steps:
        raise InvalidError(
            f"a launch of {pairs} baseline and {len(candidate_s)} candidate blocks, of {sorted(lengths)} steps",
            expected="as many blocks of each arm, at least 2, of as many steps",
            remedy="find out why blocks or steps are missing",
        )
    base, cand = base.reshape(pairs, steps), cand.reshape(pairs, steps)
    log_ratio, se = _aligned(base, cand)
    return LaunchEstimate(log_ratio, float(seconds), se, session, *_whole(base, cand), aligned=True)


def by_shape(launches: Sequence[LaunchEstimate]) -> tuple[LaunchEstimate, ...]:
    """Return the launches as they are, or with the ratios of whole times where ``whole_times_count``."""
    if not whole_times_count(launches):
        return tuple(launches)
    return tuple(replace(one, log_ratio=one.whole, se=one.whole_se) for one in launches if one.whole is not None)


def whole_times_count(launches: Sequence[LaunchEstimate]) -> bool:
    """Say whether typical tokens tell too little: the arms ``differ_in_shape``, or one is ``slower_at_times``."""
    return differ_in_shape(launches) or slower_at_times(launches)


def differ_in_shape(launches: Sequence[LaunchEstimate]) -> bool:
    """Say whether whole times show another ratio than typical ones, by Student's t test across launches.

    They do where one arm is slow now and then and the other is not: that is no scatter of the host's. The test is at
    0.2 %, for it is repeated after every launch. The error of the difference is at least what the launches' own blocks
    imply.
    """
    gaps = np.array([one.whole - one.log_ratio for one in launches if one.aligned and one.whole is not None])
    n = len(gaps)
    if n < _LEAST_LAUNCHES or n < len(launches):
        return False
    within = float(np.mean([one.whole_se**2 for one in launches if one.whole_se is not None] or [0.0]))
    error = math.sqrt(max(float(gaps.var(ddof=1)), within) / n)
    return bool(abs(float(gaps.mean())) > -stdtrit(n - 1, _SHAPE_ALPHA / 2) * error + _SHARPEST)


def slower_at_times(launches: Sequence[LaunchEstimate]) -> bool:
    """Say whether typical times show a gain and whole ones much less of it, by Student's t tests across launches.

    A candidate that is fast in most tokens and slow in a few is not as fast, or no faster at all: the middle of the
    differences shows nothing of the few. Much is 2 %, or a tenth of the gain if that is more, for a stall of the host's
    is the longer beside a fast candidate; of a small gain it is half.
    """
    gaps = np.array([one.whole - one.log_ratio for one in launches if one.whole is not None])
    n = len(gaps)
    if n < _LEAST_LAUNCHES or n < len(launches):
        return False
    typical = np.array([one.log_ratio for one in launches])
    gain = float(typical.mean())
    if gaps.mean() >= -max(min(gain / 2, max(_MUCH, gain / 10)), _LEAST_GAP):
        return False
    # Whole times of a noisy host say anything: they matter where a gain was shown.
    if gain <= -stdtrit(n - 1, _SLOWER_ALPHA) * max(float(typical.std(ddof=1)), _SHARPEST) / math.sqrt(n):
        return False
    error = max(float(gaps.std(ddof=1)), _SHARPEST) / math.sqrt(n)
    return bool(gaps.mean() < stdtrit(n - 1, _SLOWER_ALPHA) * error)


def side_by_side(pairs: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which baseline blocks meet which candidate blocks: those of one pair, and of pairs side by side."""
    own = np.arange(pairs)
    return np.concatenate([own, own[1:], own[:-1]]), np.concatenate([own, own[:-1], own[1:]])


def _trimmed(base: Floats, cand: Floats) -> tuple[float, float]:
    """Log ratio and standard error of log times, (pairs, 1) each.

    The mean of the middle fifth of the differences between blocks of one pair and of pairs side by side. Its standard
    error is the infinitesimal jackknife's, as that of the aligned shift: trimmed means have the influence of a clipped
    difference (Huber 1981).
    """
    of_base, of_cand = side_by_side(len(base))
    differences = (base[of_base] - cand[of_cand]).ravel()
    ordered, trimmed = np.sort(differences), int(_TRIMMED * len(differences))
    middle = ordered[trimmed : len(ordered) - trimmed]
    clipped = np.clip(differences, middle[0], middle[-1])
    pull = (clipped - clipped.mean()) / len(middle)
    return float(middle.mean()), _jackknife(pull, len(base))


def _aligned(base: Floats, cand: Floats) -> tuple[float, float]:
    """Shift and standard error of log times, (pairs, steps) each."""
    pairs, steps = base.shape
    of_base, of_cand = side_by_side(pairs)
    differences = base[of_base] - cand[of_cand]
    neighbours = np.abs(np.concatenate([np.diff(base, axis=1), np.diff(cand, axis=1)]))
    width = max(float(np.median(neighbours)) / _NORMAL_MAD / math.sqrt(2) if steps > 1 else 0.0, _SHARPEST)
    shift = _mode(differences.ravel(), width)
    u = (differences - shift) / width
    weight = np.exp(-u * u / 2)
    slope = float((weight * (1 - u * u)).sum()) / width
    return shift, _jackknife((weight * u).sum(axis=1) / slope, pairs) if slope > 0 else math.inf


def _jackknife(pull: Floats, pairs: int) -> float:
    """The standard error of an estimate on which each difference of ``side_by_side`` has the influence ``pull``."""
    of_base, of_cand = side_by_side(pairs)
    groups, count = _grouped(pairs)
    across = groups[of_base] != groups[of_cand]
    pulls = np.bincount(groups[of_base], pull, count) + np.bincount(groups[of_cand], pull * across, count)
    return math.sqrt(count / (count - 1) * float(np.square(pulls).sum()))


def _mode(values: Floats, width: float) -> float:
    """Where Gaussian kernels of ``width`` on all ``values`` sum to the most, uphill from their median (mean shift).

    Not the highest of all modes: where two speeds meet each other as often as themselves, chance decides which that is.
    """
    shift = float(np.median(values))
    for _ in range(_CLIMB):
        weight = np.exp(-np.square((values - shift) / width) / 2)
        last, total = shift, float(weight.sum())
        if total > 0:
            shift = float(weight @ values) / total
        if abs(shift - last) < _SETTLED * width:
            break
    return shift


def _whole(base: Floats, cand: Floats) -> tuple[float, float]:
    """Log ratio of whole times and its standard error, of log times (pairs, steps) each."""
    sums = [np.exp(arm).sum(axis=1) for arm in (base, cand)]
    groups, count = _grouped(len(base))
    shares = [np.bincount(groups, each, count) / each.sum() for each in sums]
    se = math.sqrt(count / (count - 1) * float(np.square(shares[0] - shares[1]).sum()))
    return math.log(sums[0].sum() / sums[1].sum()), se


def _grouped(pairs: int) -> tuple[NDArray[np.int64], int]:
    """The group of each pair, and how many groups there are."""
    count = min(pairs, _GROUPS)
    return np.arange(pairs) * count // pairs, count
