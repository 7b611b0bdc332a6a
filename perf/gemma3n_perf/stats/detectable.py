"""What a duel could have shown: smallest detectable effects, and how to spend a budget on launches.

"Inconclusive" without the effect that would have been seen says nothing.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

from scipy.special import nctdtrinc

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.sequential import critical

_COUNTS = range(2, 4097)
"""Of launches: more are out of reach."""

LAST_LOOK_SHARE = 0.4
"""Share of the error that the last of many looks is left with (0.38 to 0.58 for 60 down to 6 launches at rho 1.5)."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What launches can show. Exact for Gaussian launches.

    ``sd``: spread of the launches, log units.
    ``tail``: two-sided error of the look.
    ``power``: chance with which an effect is to be shown.
    """

    sd: float
    tail: float = 0.05
    power: float = 0.8

    def effect(self, launches: int, *, threshold: float) -> float:
        """Smallest true effect (log units) that ``launches`` (2 or more) show beyond ``threshold``.

        From the noncentrality at which Student's t crosses with the chance ``power``.
        """
        df = launches - 1
        shift = float(nctdtrinc(df, 1.0 - self.power, critical(self.tail, df)))
        return threshold + shift * self.sd / math.sqrt(launches)

    def launches(self, effect: float, *, threshold: float) -> int | None:
        """Fewest launches (2 or more) that show a true ``effect`` beyond ``threshold``; None if out of reach."""
        index = bisect_left(_COUNTS, True, key=lambda count: self.effect(count, threshold=threshold) <= effect)
        return _COUNTS[index] if index < len(_COUNTS) else None

    def launches_to_decide(self, size: float, *, threshold: float, margin: float) -> int | None:
        """Fewest launches that show an effect of this ``size`` as a change or as none; None if out of reach."""
        change = self.launches(size, threshold=threshold) if size > threshold else None
        same = self.launches(margin, threshold=size) if size < margin else None
        return min((count for count in (change, same) if count is not None), default=None)


@dataclass(frozen=True, slots=True)
class Plan:
    """How to divide a budget: ``launches`` of ``pairs`` block pairs each, and what that can show.

    ``launch_s``: measuring time of a launch.
    ``sd``, ``detectable``: spread of a launch and smallest effect shown, log units.
    """

    launches: int
    pairs: int
    launch_s: float
    sd: float
    detectable: float


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
    plans = []
    for launches in range(min_launches, int(budget_s / (start_s + min_pairs * pair_s) + 1e-9) + 1):
        pairs = max(min_pairs, int((budget_s / launches - start_s) / pair_s + 1e-9))
        sd = math.sqrt(launch_sd**2 + pair_sd**2 / pairs)
        seen = Sensitivity(sd, tail).effect(launches, threshold=threshold)
        plans.append(Plan(launches, pairs, pairs * pair_s, sd, seen))
    if not plans:
        shortest = min_launches * (start_s + min_pairs * pair_s)
        raise UsageError(
            f"a budget of {budget_s:g} s is too short for {min_launches} launches of {min_pairs} pairs of blocks",
            expected=f"at least {shortest:.0f} s",
            remedy=f"pass --budget {math.ceil(shortest)}",
        )
    return min(plans, key=lambda one: one.detectable)
