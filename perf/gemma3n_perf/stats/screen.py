"""Today's session against stored ones: a screen that suspects, never a proof. A duel must confirm it.

Sessions of one machine differ by far more than runs within a session, so the yardstick is
the spread between stored sessions, and one stored session is no yardstick at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtrit

from gemma3n_perf.stats import messages
from gemma3n_perf.stats.estimates import log_times, relative_change
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import pooled_variance
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict, decide, not_measured

_POWER = 0.8

SUSPICION_Z = -0.84
"""A fifth of sessions of unchanged code lie below this many standard errors."""

BLIND = 0.1
"""A screen whose interval holds a loss of this size shows nothing: the machine may be as much faster today as the code
is slower."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviation between sessions of log throughput, with its degrees of freedom."""

    sd: float
    df: int


def pooled_spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Pool the between-session spread of several workloads of one chip class.

    ``groups`` hold the sessions' seconds per token, one sequence per workload. Workloads with one
    session add nothing; None where no group has two.
    Raises InvalidError for times that are not positive and finite.
    """
    logs = [log_times(group, "session") for group in groups if len(group) >= 2]
    if not logs:
        return None
    variance, df = pooled_variance(logs)
    return Spread(math.sqrt(variance), df)


def combined(own: Spread | None, pooled: Spread | None) -> Spread | None:
    """Prefer the spread with more degrees of freedom, but never one smaller than what these sessions show."""
    if own is None or pooled is None:
        return own or pooled
    if pooled.df <= own.df:
        return own
    return Spread(max(own.sd, pooled.sd), pooled.df) if own.sd <= 2.0 * pooled.sd else own


def judge_screen(
    today_tpot_s: float, baseline_tpot_s: Sequence[float], policy: Policy, *, spread: Spread | None = None
) -> Judgement:
    """Judge today's seconds per token against those of the ``k`` stored sessions of its chip class and workload.

    The interval is the predictive one of one new session, ``+- t(df) * sd * sqrt(1 + 1/k)`` (Hahn & Meeker 1991):
    ``sd`` is ``combined`` of these sessions (k - 1 df) and of ``spread``, the class's ``pooled_spread``. Without that,
    one stored session cannot judge anything and the verdict is inconclusive. A loss here is a
    suspicion: only a duel proves it. Without stored sessions the verdict is not-measured.
    Raises InvalidError for times that are not positive and finite.
    """
    k = len(baseline_tpot_s)
    if k == 0:
        return not_measured("this workload has no stored session to compare with")
    base, today = log_times(baseline_tpot_s, "session"), float(log_times([today_tpot_s], "session")[0])
    change = float(base.mean()) - today
    used = combined(Spread(float(base.std(ddof=1)), k - 1) if k >= 2 else None, spread)
    result = Judgement(
        Verdict.INCONCLUSIVE,
        "one stored session shows no spread between sessions, so a change of any size could be chance; "
        "store more sessions or run a duel",
        effect=relative_change(change),
        level=1.0 - policy.alpha,
        threshold=policy.minimum_effect,
        margin=policy.margin,
        launches=k,
        noise=NoiseStatus.USED if used else NoiseStatus.MISSING,
    )
    if used is None:
        return result
    se, t = used.sd * math.sqrt(1.0 + 1.0 / k), float(-stdtrit(used.df, policy.alpha / 2.0))
    low, high = relative_change(change - t * se), relative_change(change + t * se)
    result = replace(
        result,
        verdict=decide(low, high, threshold=policy.minimum_effect, margin=policy.margin),
        low=low,
        high=high,
        bound_low=low,
        bound_high=high,
        launch_sd=used.sd,
        detectable=relative_change((t + float(stdtrit(used.df, _POWER))) * se),
    )
    return replace(result, reason=messages.screen_reason(result))


def suspects(judgement: Judgement, policy: Policy) -> float | None:
    """How many standard errors below the stored sessions today's lies, negative, where a duel should look into it.

    Every loss is looked into, and so is an inconclusive screen where no more than one session in five of unchanged
    code would look this slow, or whose interval holds a loss of 10 %: where sessions differ by 20 %, the screen alone
    would let a loss of 20 % pass. None where there is nothing to look into.
    """
    if judgement.effect is None or not judgement.launch_sd or not judgement.launches:
        return None
    z = math.log1p(judgement.effect) / (judgement.launch_sd * math.sqrt(1 + 1 / judgement.launches))
    slow = judgement.effect < -policy.minimum_effect and z < SUSPICION_Z
    blind = judgement.low is not None and judgement.low < -BLIND
    unclear = judgement.verdict is Verdict.INCONCLUSIVE and (slow or blind)
    return z if unclear or judgement.verdict is Verdict.LOSS else None
