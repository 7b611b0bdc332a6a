"""Ways to turn the steps of a launch into one number, compared over kinds of noise and over recorded launches.

As in ``studies.estimators``, the choice rests on bad days; here the bad day is a core of two speeds.
``python -m studies.step_estimators`` prints the table of docs/method.md; the seed is fixed, so it repeats.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

import numpy as np

from gemma3n_perf.stats.estimates import estimate_launch
from gemma3n_perf.stats.spread import Floats
from gemma3n_perf.stats.steps import estimate_steps, side_by_side
from studies import carry_out
from studies.estimators import Estimator, compare

NOISES = ("gaussian", "stalls", "two speeds", "two speeds, stalls")
_STEPS, _DROPPED = 5, 2


def step_noise(kind: str, blocks: int, rng: np.random.Generator) -> Floats:
    """Log step times in the order measured, shape (blocks, 5): 3 % Gaussian noise and what ``kind`` adds.

    ``stalls`` hit 5 % of steps, by 30 % and more. A core of ``two speeds`` is half as slow again about half of the
    time; it changes after 6 % of steps, those that do not count included.
    """
    if kind not in NOISES:
        raise ValueError(f"noise {kind!r} is none of {NOISES}")
    times = 0.03 * rng.standard_normal((blocks, _STEPS))
    if "stalls" in kind:
        stalled = rng.random(times.shape) < 0.05
        times += np.log1p(stalled * (0.3 + rng.standard_exponential(times.shape)))
    if "two speeds" in kind:
        speeds = np.cumsum(rng.random(blocks * (_STEPS + _DROPPED)) < 0.06) % 2
        times += np.log1p(0.5 * speeds.reshape(blocks, -1)[:, _DROPPED:])
    return times


def _blocks(times: Floats) -> list[float]:
    return [float(one) for one in np.exp(times).mean(axis=1)]


def _by_step(base: Floats, cand: Floats) -> float:
    shifts = np.median((base[:, None, :] - cand[None, :, :]).reshape(-1, base.shape[1]), axis=0)
    typical = np.median(np.concatenate([base, cand]), axis=0)
    return float(np.logaddexp.reduce(typical + shifts / 2) - np.logaddexp.reduce(typical - shifts / 2))


def _side_by_side(base: Floats, cand: Floats) -> float:
    of_base, of_cand = side_by_side(len(base))
    return float(np.median(base[of_base] - cand[of_cand]))


ESTIMATORS: Mapping[str, Estimator] = {
    "ratio of whole times": lambda b, c: float(np.log(np.exp(b).sum() / np.exp(c).sum())),
    "mean of pairs": lambda b, c: float((b - c).mean()),
    "Hodges-Lehmann, blocks": lambda b, c: estimate_launch(_blocks(b), _blocks(c), seconds=0.0).log_ratio,
    "Hodges-Lehmann, step by step": _by_step,
    "median, pairs side by side": _side_by_side,
    "aligned (used)": lambda b, c: estimate_steps(np.exp(b).tolist(), np.exp(c).tolist(), seconds=0.0).log_ratio,
}
"""Estimators of the log ratio from log step times of both arms, (pairs, steps) each, in pairs of neighbours."""


def scatter(kind: str, pairs: int, launches: int, seed: int) -> Mapping[str, float]:
    """Root mean square of each estimator over A/A launches of ``pairs`` randomly ordered pairs, log units."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(launches):
        times = step_noise(kind, 2 * pairs, rng).reshape(pairs, 2, _STEPS)
        swap = (rng.random(pairs) < 0.5)[:, None]
        made.append((np.where(swap, times[:, 1], times[:, 0]), np.where(swap, times[:, 0], times[:, 1]), 0.0))
    return errors(made)


def errors(launches: Sequence[tuple[Floats, Floats, float]]) -> Mapping[str, float]:
    """Root mean square error of each estimator, log units, over launches: log step times of both arms, (pairs, steps)
    each, and the true log ratio."""
    return {
        name: float(np.sqrt(np.mean([(estimator(b, c) - truth) ** 2 for b, c, truth in launches])))
        for name, estimator in ESTIMATORS.items()
    }


def main(arguments: Sequence[str], out: TextIO) -> int:
    """Print the comparison."""
    return compare(arguments, out, "step_estimators", __doc__, scatter, NOISES, pairs=28, launches=2000)


if __name__ == "__main__":
    sys.exit(carry_out(main))
