"""How long the launches of a duel are: a budget, divided into launches of so many pairs of blocks."""

from gemma3n_perf.duel.launch import Pairs
from gemma3n_perf.duel.scheduler import Rules
from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.detectable import LAST_LOOK_SHARE, plan
from gemma3n_perf.stats.policy import Policy

LAUNCH_S = (3.0, 10.0)
"""Seconds of measuring in a launch: fewer waste starts, more waste launches (docs/method.md)."""

MOST_OF_BUDGET, MOST_CALIBRATED = 1 / 8, 1 / 4
"""Share of a budget that one launch may take: the interval of a handful of launches is wide, less so where the spread
of the class's launches is known."""

LONGEST_S = 30.0
"""Seconds of measuring in a launch whose start takes as long: where starts dominate, wall time is saved."""

LEAST_PAIRS = 6
"""How few pairs of blocks a launch may have."""

_LAUNCH_SD, _PAIR_SD = 0.005, 0.03


def launch_pairs(policy: Policy, rules: Rules, *, calibrated: bool = False) -> Pairs:
    """Return how many pairs of blocks a launch holds, for a pair and a start of given seconds (see ``stats.plan``).
    ``calibrated`` says that the spread of launches is known.

    Raises UsageError, before anything is measured, where the budget does not hold the fewest launches there must be.
    """
    needed = rules.min_launches * rules.sessions

    def pairs(pair_s: float, start_s: float) -> int:
        shortest = needed * LEAST_PAIRS * pair_s
        if rules.budget_s < shortest and rules.flexible:
            return LEAST_PAIRS
        if rules.budget_s < shortest:
            raise UsageError(
                f"a budget of {rules.budget_s:g} s is too short: {needed} launches of {LEAST_PAIRS} pairs of blocks "
                f"take {shortest:.1f} s of measuring here",
                expected=f"at least {shortest:.1f} s",
                remedy=f"pass --budget {int(shortest * 1.1) + 1}",
            )
        wall = rules.budget_s + max(needed, rules.budget_s / LAUNCH_S[0]) * start_s
        best = plan(
            wall, pair_s=pair_s, start_s=start_s, launch_sd=_LAUNCH_SD, pair_sd=_PAIR_SD,
            threshold=policy.minimum_effect, tail=LAST_LOOK_SHARE * policy.alpha, min_launches=needed,
            min_pairs=LEAST_PAIRS,
        )  # fmt: skip
        share = MOST_CALIBRATED if calibrated else MOST_OF_BUDGET
        least = max(LAUNCH_S[0], min(start_s, LONGEST_S)) if start_s > LAUNCH_S[1] else LAUNCH_S[0]
        most = max(LAUNCH_S[0], min(max(LAUNCH_S[1], least), share * rules.budget_s))
        seconds = min(max(best.launch_s, least), most, rules.budget_s / needed)
        return max(LEAST_PAIRS, int(seconds / pair_s + 1e-9))

    return pairs
