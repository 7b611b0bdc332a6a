"""Ways to turn a launch's blocks into one number, compared over kinds of block noise.

The estimator is chosen by what it does on bad days. ``python -m studies.estimators``
prints the table of docs/method.md; the seed is fixed, so it repeats.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import numpy as np

from gemma3n_perf.stats.estimates import estimate_launch
from gemma3n_perf.stats.spread import Floats
from gemma3n_perf.stats.steps import estimate
from studies import carry_out

Estimator = Callable[[Floats, Floats], float]
Scatter = Callable[[str, int, int, int], Mapping[str, float]]
"""From a noise, the pairs of a launch, how many launches, and a seed, to the scatter of each estimator."""

NOISES = ("gaussian", "spikes", "skewed", "bursts", "random walk", "trend")


def block_noise(kind: str, blocks: int, rng: np.random.Generator) -> Floats:
    """Log block times in the order measured, shape (blocks,): 2 % Gaussian noise and what ``kind`` adds.

    ``spikes`` hit 10 % of blocks by 30 % on average, ``skewed`` is mostly one-sided, ``bursts`` of
    contention last 5 blocks on average, ``random walk`` and ``trend`` (20 % over a launch) are slow changes.
    """
    own = 0.02 * rng.standard_normal(blocks)
    match kind:
        case "gaussian":
            return own
        case "spikes":
            return own + np.where(rng.random(blocks) < 0.1, 0.3 * rng.standard_exponential(blocks), 0.0)
        case "skewed":
            return rng.gamma(0.5, 0.04, blocks) + 0.3 * own
        case "bursts":
            on = np.zeros(blocks, dtype=bool)
            for i in range(1, blocks):
                on[i] = rng.random() < (0.8 if on[i - 1] else 0.05)
            return own + np.where(on, 0.3 * rng.standard_exponential(blocks), 0.0)
        case "random walk":
            return own + 0.02 * rng.standard_normal(blocks).cumsum()
        case "trend":
            return np.asarray(own + np.linspace(0.0, 0.2, blocks))
        case _:
            raise ValueError(f"noise {kind!r} is none of {NOISES}")


def _paired_hodges_lehmann(base: Floats, cand: Floats) -> float:
    d = base - cand
    i, j = np.triu_indices(len(d))
    return float(np.median((d[i] + d[j]) / 2.0))


def _trimmed(base: Floats, cand: Floats) -> float:
    d = np.sort(base - cand)
    trimmed = len(d) // 5
    return float(d[trimmed : len(d) - trimmed].mean())


ESTIMATORS: Mapping[str, Estimator] = {
    "mean of pairs": lambda b, c: float((b - c).mean()),
    "ratio of means": lambda b, c: float(np.log(np.exp(b).mean() / np.exp(c).mean())),
    "ratio of best": lambda b, c: float(b.min() - c.min()),
    "ratio of medians": lambda b, c: float(np.median(b) - np.median(c)),
    "median of pairs": lambda b, c: float(np.median(b - c)),
    "20 % trimmed pairs": _trimmed,
    "Hodges-Lehmann, pairs": _paired_hodges_lehmann,
    "Hodges-Lehmann, two samples": lambda b, c: (
        estimate_launch(np.exp(b).tolist(), np.exp(c).tolist(), seconds=0.0).log_ratio
    ),
    "40 % trimmed, side by side (used)": lambda b, c: (
        estimate(np.exp(b).tolist(), np.exp(c).tolist(), seconds=0.0).log_ratio
    ),
}
"""Estimators of the log ratio from log block times of both arms, in pairs of neighbours."""


def scatter(kind: str, pairs: int, launches: int, seed: int) -> Mapping[str, float]:
    """Standard deviation of each estimator over A/A launches of ``pairs`` randomly ordered pairs, log units."""
    rng = np.random.default_rng(seed)
    found: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    for _ in range(launches):
        times = block_noise(kind, 2 * pairs, rng).reshape(pairs, 2)
        swap = rng.random(pairs) < 0.5
        base, cand = np.where(swap, times[:, 1], times[:, 0]), np.where(swap, times[:, 0], times[:, 1])
        for name, estimator in ESTIMATORS.items():
            found[name].append(estimator(base, cand))
    return {name: float(np.std(values)) for name, values in found.items()}


def compare(
    arguments: Sequence[str],
    out: TextIO,
    name: str,
    about: str | None,
    measure: Scatter,
    noises: Sequence[str],
    *,
    pairs: int,
    launches: int,
) -> int:
    """Print the scatter of every estimator that ``measure`` knows, per cent, a column for each noise, in Markdown.

    ``name`` is the study's and ``about`` its help; ``arguments`` override how many pairs and launches there are, and
    the seed of the first column.
    """
    parser = argparse.ArgumentParser(prog=f"python -m studies.{name}", description=about)
    parser.add_argument("--pairs", type=int, default=pairs, help=f"pairs of blocks per launch (default {pairs})")
    parser.add_argument("--launches", type=int, default=launches, help=f"launches per noise (default {launches})")
    parser.add_argument("--seed", type=int, default=1, help="seed of the first column (default 1)")
    args = parser.parse_args(arguments)
    columns = [measure(kind, args.pairs, args.launches, args.seed + i) for i, kind in enumerate(noises)]
    print("| estimator | " + " | ".join(noises) + " |", "|---" * (len(noises) + 1) + "|", sep="\n", file=out)
    for estimator in columns[0]:
        cells = [estimator, *(f"{100 * column[estimator]:.2f}" for column in columns)]
        print("| " + " | ".join(cells) + " |", file=out)
    return 0


def main(arguments: Sequence[str], out: TextIO) -> int:
    """Print the comparison."""
    return compare(arguments, out, "estimators", __doc__, scatter, NOISES, pairs=20, launches=4000)


if __name__ == "__main__":
    sys.exit(carry_out(main))
