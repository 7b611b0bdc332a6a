"""The verdict of the screen: suspicion against stored sessions, which a duel must confirm."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.stats.estimates import relative_change
from gemma3n_perf.stats.messages import percent
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.screen import Screen, Spread, screen
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict, claims, closes, not_measured


@dataclass(frozen=True, slots=True)
class Sessions:
    """One workload: today's seconds per token, and those of the stored sessions (one value each)."""

    today_tpot_s: float
    baseline_tpot_s: tuple[float, ...]


def judge_screen(
    today_tpot_s: float, baseline_tpot_s: Sequence[float], policy: Policy, *, spread: Spread | None = None
) -> Judgement:
    """Judge today's session against the stored ones of its chip class and workload.

    ``spread`` is the class's pooled between-session spread (``stats.screen.pooled_spread``); without it
    one stored session cannot judge anything and the verdict is inconclusive. A loss here is a
    suspicion: only a duel proves it. Without stored sessions the verdict is not-measured.
    """
    if len(baseline_tpot_s) == 0:
        return not_measured("this workload has no stored session to compare with")
    found = screen(today_tpot_s, baseline_tpot_s, alpha=policy.alpha, spread=spread)
    base = Judgement(
        Verdict.INCONCLUSIVE,
        "",
        effect=relative_change(found.change),
        level=1.0 - policy.alpha,
        threshold=policy.minimum_effect,
        margin=policy.margin,
        launches=found.sessions,
        noise=NoiseStatus.USED if found.spread else NoiseStatus.MISSING,
    )
    if found.low is None or found.high is None or found.spread is None or found.detectable is None:
        return replace(
            base,
            reason="one stored session shows no spread between sessions, so a change of any size could be chance; "
            "store more sessions or run a duel",
        )
    low, high = relative_change(found.low), relative_change(found.high)
    verdict = _verdict(low, high, policy)
    return replace(
        base,
        verdict=verdict,
        low=low,
        high=high,
        bound_low=low,
        bound_high=high,
        launch_sd=found.spread.sd,
        detectable=relative_change(found.detectable),
        reason=_reason(verdict, found, low, high, policy),
    )


def judge_screens(
    workloads: Mapping[str, Sessions], policy: Policy, *, spread: Spread | None = None
) -> Mapping[str, Judgement]:
    """Judge several workloads as one family with Holm's procedure; ``policy.alpha`` is the family's."""

    def one(name: str, alpha: float) -> Judgement:
        sessions = workloads[name]
        return judge_screen(
            sessions.today_tpot_s, sessions.baseline_tpot_s, replace(policy, alpha=alpha), spread=spread
        )

    return step_down(list(workloads), policy.alpha, one, claims, closes)


SUSPICION_Z = -0.84
"""A fifth of sessions of unchanged code lie below this many standard errors."""

BLIND = 0.1
"""A screen that leaves room for a loss of this size has not looked: the machine may be as much faster today as the code
is slower."""


def suspects(judgement: Judgement, policy: Policy) -> float | None:
    """How many standard errors below the stored sessions today's lies, negative, where a duel should look into it.

    Every loss is looked into, and so is an inconclusive screen where no more than one session in five of unchanged
    code would look this slow, or whose interval holds a loss of 10 %: where sessions differ by 20 %, the screen alone
    would let a loss of 20 % pass. None where there is nothing to look into.
    """
    if judgement.effect is None or not judgement.launch_sd or not judgement.launches:
        return None
    z = math.log1p(judgement.effect) / (judgement.launch_sd * math.sqrt(1 + 1 / judgement.launches))
    if judgement.verdict is Verdict.LOSS:
        return z
    slow = judgement.effect < -policy.minimum_effect and z < SUSPICION_Z
    blind = judgement.low is not None and judgement.low < -BLIND
    return z if judgement.verdict is Verdict.INCONCLUSIVE and (slow or blind) else None


def _verdict(low: float, high: float, policy: Policy) -> Verdict:
    if high < -policy.minimum_effect:
        return Verdict.LOSS
    if low > policy.minimum_effect:
        return Verdict.WIN
    if low > -policy.margin and high < policy.margin:
        return Verdict.NO_CHANGE
    return Verdict.INCONCLUSIVE


def _reason(verdict: Verdict, found: Screen, low: float, high: float, policy: Policy) -> str:
    floor, margin = policy.minimum_effect, policy.margin
    against = f"against {found.sessions} stored session{'s' if found.sessions > 1 else ''}"
    interval = f"{percent(low)} to {percent(high)}"
    match verdict:
        case Verdict.LOSS:
            return f"{against} the interval, {interval}, is below {percent(-floor)}: confirm by a duel"
        case Verdict.WIN:
            return f"{against} the interval, {interval}, is above {percent(floor)}"
        case Verdict.NO_CHANGE:
            return f"{against} the interval, {interval}, is within {percent(-margin)} to {percent(margin)}"
        case _:
            least = 100 * relative_change(found.detectable or 0.0)
            return (
                f"{against} the interval is {interval}: sessions here differ too much to tell less than {least:.1f} %"
            )
