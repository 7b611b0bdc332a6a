"""Today's session against stored ones: a screen that suspects, never a proof.

Opinion: sessions of one machine differ by far more than runs within a session, so the yardstick is
the spread between stored sessions, and one stored session is no yardstick at all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from gemma3n_perf.errors import InvalidError, UsageError


@dataclass(frozen=True, slots=True)
class Spread:
    """Standard deviation between sessions of log throughput, with its degrees of freedom."""

    sd: float
    df: int


@dataclass(frozen=True, slots=True)
class Screen:
    """Log change of today's session against the baseline, with a predictive interval.

    ``low`` and ``high`` are None where the spread between sessions is unknown. ``detectable`` is the
    smallest true change (log units) that would be told from zero with 80 % chance.
    """

    change: float
    low: float | None
    high: float | None
    sessions: int
    spread: Spread | None
    detectable: float | None


def pooled_spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Pool the between-session spread of several workloads of one chip class.

    ``groups`` hold the sessions' seconds per token, one sequence per workload. Workloads with one
    session add nothing; None where no group has two.
    """
    logs = [_log(group) for group in groups if len(group) >= 2]
    if not logs:
        return None
    df = sum(len(g) - 1 for g in logs)
    return Spread(math.sqrt(sum(float(((g - g.mean()) ** 2).sum()) for g in logs) / df), df)


def screen(
    today_tpot_s: float, baseline_tpot_s: Sequence[float], *, alpha: float = 0.05, spread: Spread | None = None
) -> Screen:
    """Compare one session's seconds per token with those of ``k`` stored sessions.

    The change is ``log(baseline / today)`` of time, that is of throughput today over baseline, with the
    predictive interval ``+- t(df) * sd * sqrt(1 + 1/k)`` of one new session (Hahn & Meeker 1991): ``sd``
    from these sessions (k - 1 df), or the class's pooled ``spread`` where that has more degrees of
    freedom, but never less than these sessions show themselves.
    Raises UsageError for no sessions, InvalidError for times that are not positive and finite.
    """
    if len(baseline_tpot_s) == 0:
        raise UsageError("no stored session to compare with", expected="at least one")
    base, today = _log(baseline_tpot_s), float(_log([today_tpot_s])[0])
    k = len(base)
    change = float(base.mean()) - today
    own = Spread(float(base.std(ddof=1)), k - 1) if k >= 2 else None
    used = _combine(own, spread)
    if used is None:
        return Screen(change, None, None, k, None, None)
    se = used.sd * math.sqrt(1.0 + 1.0 / k)
    t = float(-stdtrit(used.df, alpha / 2.0))
    return Screen(
        change=change,
        low=change - t * se,
        high=change + t * se,
        sessions=k,
        spread=used,
        detectable=(t + float(stdtrit(used.df, 0.8))) * se,
    )


def _combine(own: Spread | None, pooled: Spread | None) -> Spread | None:
    """Prefer the spread with more degrees of freedom, but never one smaller than what these sessions show."""
    if own is None or pooled is None:
        return own or pooled
    if pooled.df <= own.df:
        return own
    return Spread(max(own.sd, pooled.sd), pooled.df) if own.sd <= 2.0 * pooled.sd else own


def _log(values: Sequence[float]) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(x) & (x > 0)):
        raise InvalidError(
            f"session times {x.tolist()}",
            expected="positive, finite seconds per token",
            remedy="re-record that session",
        )
    return np.log(x)
