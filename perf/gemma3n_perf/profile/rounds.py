"""Interleaved rounds: every variant once a round, in random order, medians over rounds, and the time they may take.

On a machine whose speed swings by a quarter within a second only what was measured side by side compares, and only an
interval that assumes nothing of the noise's shape can be trusted.
"""

import random
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.types import Estimate
from gemma3n_perf.workload.presets import usage

LEAST_ROUNDS = 6
"""Fewer give no 95 % interval for a median: 2 x 0.5^6 is 3 %."""

Note = Callable[[str], None]
_T = TypeVar("_T")
_Name = TypeVar("_Name", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Rounds:
    """At most ``most`` rounds; ``enough`` is given how many are done and may end them from LEAST_ROUNDS on.

    ``rng`` draws the order within each round; ``note`` is given the progress.
    """

    most: int
    rng: random.Random
    note: Note = lambda text: None
    enough: Callable[[int], bool] = lambda done: False

    def interleave(self, variants: Mapping[_Name, Callable[[], _T]]) -> dict[_Name, list[_T]]:
        """Call every variant once a round, in an order drawn anew; returns each one's results, in step by round.

        Raises UsageError for fewer rounds than an interval needs.
        """
        if self.most < LEAST_ROUNDS:
            raise UsageError(f"{self.most} rounds", expected=f"{LEAST_ROUNDS} or more: fewer give no 95 % interval")
        found: dict[_Name, list[_T]] = {name: [] for name in variants}
        for done in range(self.most):
            if done >= LEAST_ROUNDS and self.enough(done):
                break
            self.note(f"round {done + 1} of {self.most}")
            for name in self.rng.sample(list(variants), len(variants)):
                found[name].append(variants[name]())
        return found


def estimate(values: ArrayLike) -> Estimate:
    """Median of one value a round, with the sign test's interval. Raises UsageError for fewer than LEAST_ROUNDS."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if len(ordered) < LEAST_ROUNDS:
        raise UsageError(f"{len(ordered)} rounds to estimate from", expected=f"{LEAST_ROUNDS} or more")
    low, high = sign_test_interval(len(ordered))
    return Estimate(float(np.median(ordered)), float(ordered[low]), float(ordered[high]), len(ordered))


def sign_test_interval(n: int) -> tuple[int, int]:
    """Indices of the order statistics that hold the median of ``n`` values with at least 95 % confidence."""
    from scipy.stats import binom

    low = max(int(binom.ppf(0.025, n, 0.5)) - 1, 0)
    return low, n - 1 - low


@dataclass(frozen=True, slots=True)
class TimePlan:
    """How much time each part may take. A part always takes its fewest rounds; seconds decide how many more.

    ``rounds`` at most, of ``tokens`` tokens each; ``engine_tokens`` for each engine. ``lengths`` are prompts of text
    whose decode is compared. ``duel_s`` is measuring time for each knob, of which ``knobs`` are tried (None: all).
    ``seconds`` are by part.
    """

    rounds: int
    tokens: int
    engine_tokens: int
    lengths: tuple[int, ...]
    duel_s: float
    knobs: int | None
    seconds: Mapping[str, float]

    def scaled(self, budget_s: float) -> "TimePlan":
        """Return this plan with its parts' seconds in proportion, ``budget_s`` in all. Raises UsageError."""
        if not budget_s > 0:
            raise UsageError(f"a budget of {budget_s:g} s", expected="seconds above 0", remedy="pass --budget 120")
        factor = budget_s / sum(self.seconds.values())
        seconds = {part: value * factor for part, value in self.seconds.items()}
        return replace(self, seconds=seconds, duel_s=max(self.duel_s * min(factor, 2.0), 3.0))


_SECONDS = {
    "histogram": 6.0, "floor": 12.0, "split": 18.0, "contexts": 40.0, "engines": 35.0, "trace": 20.0, "sweep": 110.0,
}  # fmt: skip
_QUICK_SECONDS = {
    "histogram": 5.0, "floor": 5.0, "split": 10.0, "contexts": 22.0, "engines": 18.0, "trace": 18.0, "sweep": 60.0,
}  # fmt: skip
_CPU_SECONDS = {"sweep": 45.0}


def time_plan(vendor: str, checkpoint: str, *, quick: bool = False, budget_s: float | None = None) -> TimePlan:
    """Return the plan that suits a chip's vendor and a checkpoint; ``budget_s`` scales its parts."""
    small, lengths = usage(checkpoint).fits_cpu, usage(checkpoint).contexts
    if quick:
        found = TimePlan(10, 12, 16, lengths if small else lengths[1:], 9.0, 3, _QUICK_SECONDS)
    else:
        found = TimePlan(24, 16, 24, lengths, 24.0, None, _SECONDS)
    if vendor == "cpu":
        found = replace(found, seconds={**found.seconds, **_CPU_SECONDS}, duel_s=min(found.duel_s, 15.0))
        if not small:  # seconds a token: the fewest rounds of the fewest tokens are all that there is time for
            found = replace(found, rounds=6, tokens=2, engine_tokens=2, lengths=(4, 12))
    return found.scaled(budget_s) if budget_s is not None else found


def until(clock: Clock, seconds: float) -> Callable[[int], bool]:
    """Return a function of rounds done that says when the time from now on is spent."""
    begin = clock()
    return lambda done: (clock() - begin) * (1 + 1 / max(done, 1)) > seconds
