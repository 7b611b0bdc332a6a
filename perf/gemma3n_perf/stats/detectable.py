"""What a duel could have seen: smallest detectable effects, and how to spend a budget on launches.

Opinion: "inconclusive" without the effect that would have been seen says nothing.
"""

import math
from dataclasses import dataclass

from scipy.special import nctdtr, nctdtrinc

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.sequential import critical

_MOST_LAUNCHES = 4096

LAST_LOOK_SHARE = 0.4
"""Share of the error that the last of many looks is left with (0.38 to 0.58 for 60 down to 6 launches at rho 1.5)."""


def power(effect: float, *, threshold: float, sd: float, launches: int, tail: float) -> float:
    """Chance that ``launches`` show a true ``effect`` beyond ``threshold``; log units, sd of one launch.

    ``tail`` is the two-sided error of the look. From the noncentral t distribution.
    """
    if launches < 2:
        return 0.0
    df = launches - 1
    shift = (effect - threshold) / max(sd, 1e-12) * math.sqrt(launches)
    if shift > 35.0:
        return 1.0
    return float(1.0 - nctdtr(df, shift, critical(tail, df)))


def smallest_detectable(
    *, threshold: float, sd: float, launches: int, tail: float = 0.05, at_power: float = 0.8
) -> float | None:
    """Smallest true effect (log units) shown beyond ``threshold`` with chance ``at_power``; None below 2 launches.

    Exact for Gaussian launches: the noncentrality at which Student's t crosses with that chance.
    """
    if launches < 2 or tail <= 0.0:
        return None
    df = launches - 1
    shift = float(nctdtrinc(df, 1.0 - at_power, critical(tail, df)))
    return threshold + shift * sd / math.sqrt(launches)


def launches_for(
    effect: float, *, threshold: float, sd: float, tail: float = 0.05, at_power: float = 0.8
) -> int | None:
    """Fewest launches (2 or more) whose smallest detectable effect is at most ``effect``; None if out of reach."""
    low, high = 2, _MOST_LAUNCHES

    def enough(n: int) -> bool:
        found = smallest_detectable(threshold=threshold, sd=sd, launches=n, tail=tail, at_power=at_power)
        return found is not None and found <= effect

    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True, slots=True)
class Plan:
    """How to divide a budget: ``launches`` of ``pairs`` block pairs each, and what that can show.

    ``launch_s`` is measuring time per launch, ``total_s`` includes the starts; ``sd`` and ``detectable``
    are in log units.
    """

    launches: int
    pairs: int
    launch_s: float
    total_s: float
    sd: float
    detectable: float | None


def plan(
    budget_s: float,
    *,
    pair_s: float,
    start_s: float,
    launch_sd: float,
    pair_sd: float,
    threshold: float = 0.005,
    tail: float = 0.05,
    min_launches: int = 3,
    min_pairs: int = 6,
) -> Plan:
    """Divide ``budget_s`` seconds into launches and pairs of blocks so that the interval is narrowest.

    A launch costs ``start_s`` within the budget (0 where only measuring counts) plus ``pair_s`` per
    pair; its number has variance ``launch_sd**2 + pair_sd**2 / pairs`` (Kalibera & Jones 2013). Without
    t quantiles the best is ``pairs = sqrt(start_s / pair_s) * pair_sd / launch_sd``; here the
    detectable effect itself is minimised, which guards against too few launches.
    Raises UsageError where the budget does not hold ``min_launches``, naming the shortest that does.
    """
    shortest = min_launches * (start_s + min_pairs * pair_s)
    if budget_s < shortest:
        raise UsageError(
            f"a budget of {budget_s:g} s is too short for {min_launches} launches of {min_pairs} pairs of blocks",
            expected=f"at least {shortest:.0f} s",
            remedy=f"pass --budget {math.ceil(shortest)}",
        )
    best: Plan | None = None
    for launches in range(min_launches, int(budget_s / (start_s + min_pairs * pair_s)) + 1):
        pairs = int((budget_s / launches - start_s) / pair_s + 1e-9)
        if pairs < min_pairs:
            continue
        sd = math.sqrt(launch_sd**2 + pair_sd**2 / pairs)
        seen = smallest_detectable(threshold=threshold, sd=sd, launches=launches, tail=tail)
        candidate = Plan(launches, pairs, pairs * pair_s, launches * (start_s + pairs * pair_s), sd, seen)
        if best is None or (seen is not None and best.detectable is not None and seen < best.detectable):
            best = candidate
    if best is None:
        raise UsageError(f"a budget of {budget_s:g} s holds no launch", expected=f"at least {shortest:.0f} s")
    return best
