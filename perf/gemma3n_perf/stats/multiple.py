"""Several workloads, one family of claims: Holm's step-down procedure.

Six workloads judged at 5 % each would call an unchanged build changed one time in four. That no workload changed is
said only where each was shown not to have: all must pass, so each is asked at the full error and the error of the whole
is no larger (an intersection-union test, Berger 1982).
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class Duel:
    """What one workload's duel measured so far, and whether it may go on. Seconds of measuring."""

    launches: tuple[LaunchEstimate, ...]
    budget_s: float
    budget_spent: bool = False


def judge_many(
    duels: Mapping[str, Duel], policy: Policy, *, noise: NoiseFloor | None = None, today: dt.date | None = None
) -> Mapping[str, Judgement]:
    """Judge the duels of several workloads as one family with Holm's procedure; ``policy.alpha`` is the family's."""

    def one(name: str, shares: int) -> Judgement:
        duel = duels[name]
        return judge(
            duel.launches,
            replace(policy, shares=shares),
            budget_s=duel.budget_s,
            noise=noise,
            today=today,
            budget_spent=duel.budget_spent,
        )

    return step_down(list(duels), one)


def step_down(names: Sequence[str], one: Callable[[str, int], Judgement]) -> Mapping[str, Judgement]:
    """Judge a family by Holm's procedure: ``one`` takes a name and how many claims of change share the error.

    All m are judged as one of m. Wins and losses keep that judgement and leave the family, the others are judged again
    as one of ``m - claims``, until no more wins or losses appear. The chance of any false claim of a change among the
    family stays below alpha (Holm 1979; for sequential looks: Ye, Li, Liu & Yao 2013). A no-change rejects no
    hypothesis, so it keeps its share, which is not passed on. Returns the judgement of each name, in the order given.
    Raises UsageError for a name that repeats.
    """
    if len(set(names)) != len(names):
        raise UsageError(f"workloads {tuple(names)} repeat", expected="each workload once")
    judged = {name: one(name, len(names)) for name in names}
    undecided = [name for name in names if judged[name].verdict is not Verdict.NO_CHANGE]
    shares = len(names)
    while claimed := [name for name in undecided if judged[name].verdict.is_claim]:
        shares -= len(claimed)
        undecided = [name for name in undecided if name not in claimed]
        again = {name: one(name, shares) for name in undecided}
        judged |= {name: found for name, found in again.items() if found.verdict is not Verdict.NO_CHANGE}
    return judged
