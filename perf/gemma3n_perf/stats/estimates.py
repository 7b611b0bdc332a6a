"""From block times to one number per launch, and from runs to a throughput with an interval.

The launch is the sample. Blocks inside a launch share one process layout, so they say how
well that launch's number is known and nothing about the next launch. All comparisons are made in
log throughput: ``candidate / baseline - 1`` is symmetric there, and percentages add up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.stats.spread import Floats, student


@dataclass(frozen=True, slots=True)
class LaunchEstimate:
    """What one launch says, in log units.

    ``log_ratio``: log(candidate throughput / baseline throughput).
    ``seconds``: the time for which both arms were measured.
    ``se``: the part of its uncertainty that the blocks of this launch show; None where unknown.
    ``session``: number of the session that it belongs to.
    ``whole``, ``whole_se``: log ratio of whole times and its error; None where blocks come in no pairs.
    ``aligned``: whether ``log_ratio`` is of single steps (``stats.steps``).
    """

    log_ratio: float
    seconds: float
    se: float | None = None
    session: int = 0
    whole: float | None = None
    whole_se: float | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that no launch can have. Raises InvalidError."""
        if not math.isfinite(self.log_ratio) or not math.isfinite(self.seconds) or self.seconds < 0:
            raise InvalidError(
                f"a launch with log ratio {self.log_ratio} measured for {self.seconds} s",
                expected="a finite log ratio and measuring time",
                remedy="look at the recorded blocks of that launch",
            )


def by_session(launches: Sequence[LaunchEstimate]) -> list[list[LaunchEstimate]]:
    """Return the launches of each session, in the order of sessions."""
    found: dict[int, list[LaunchEstimate]] = {}
    for launch in launches:
        found.setdefault(launch.session, []).append(launch)
    return [found[number] for number in sorted(found)]


def estimate_launch(
    baseline_s: Sequence[float], candidate_s: Sequence[float], *, seconds: float, session: int = 0
) -> LaunchEstimate:
    """Estimate one launch's log ratio from the seconds per token of its blocks, robustly.

    The two-sample Hodges-Lehmann shift: the median of ``log(b / c)`` over all pairs of a baseline
    block ``b`` and a candidate block ``c`` (Hodges & Lehmann 1963). The arms may have different
    numbers of blocks, as when contended ones were discarded. Its standard error is read off the
    Mann-Whitney interval for the shift (Lehmann 1975, chapter 2), so no shape is assumed, and is less by
    the factor sqrt(1 - rho) where blocks come in pairs, the n-th of one arm beside the n-th of the other,
    with rank correlation rho: what both share cancels.
    Raises InvalidError for fewer than two blocks per arm, or times that are not positive and finite.
    """
    base, cand = log_times(baseline_s, "baseline"), log_times(candidate_s, "candidate")
    m, n = len(base), len(cand)
    if min(m, n) < 2:
        raise InvalidError(
            f"a launch with {m} baseline and {n} candidate blocks",
            expected="at least 2 usable blocks of each arm",
            remedy="measure longer launches, or find out why blocks were discarded",
        )
    shifts = np.sort((base[:, None] - cand[None, :]).ravel())
    reach = math.sqrt(m * n * (m + n + 1) / 12.0)
    rank = round(m * n / 2.0 - reach)  # 1 or more, as arms have 2 blocks or more
    width = shifts[m * n - rank] - shifts[rank - 1]
    actual_z = (m * n / 2.0 - rank + 0.5) / reach
    shared = _rank_correlation(base, cand) if m == n else 0.0
    se = float(width / (2.0 * actual_z)) * math.sqrt(1.0 - shared)
    return LaunchEstimate(float(np.median(shifts)), float(seconds), se, session)


def throughput_interval(tpot_s: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of one session's tokens per second, from its runs' seconds per token (0 to inf for one run).

    It lies around ``1 / median``, which one contended run does not move, and is Student's t on the logs, widened by
    sqrt(pi / 2), the median's loss against the mean under Gaussian noise.
    It covers the noise of runs within this session, not the difference between sessions.
    Raises InvalidError for times that are not positive and finite, UsageError for no runs.
    """
    if len(tpot_s) == 0:
        raise UsageError("no runs to estimate from", expected="at least one")
    logs = -log_times(tpot_s, "run")
    estimate = 1.0 / float(np.median(np.asarray(tpot_s, dtype=np.float64)))
    if len(logs) == 1:
        return 0.0, math.inf
    half = float(student(logs.var(ddof=1), len(logs), 0.05, inflation=math.pi / 2.0))
    return estimate * math.exp(-half), estimate * (1.0 + relative_change(half))


def relative_change(log_ratio: float) -> float:
    """``candidate / baseline - 1`` of a log ratio: 0.02 is 2 % more throughput."""
    return math.expm1(log_ratio) if log_ratio < 700 else math.inf


def log_times(values: Sequence[float], what: str) -> Floats:
    """Return the logs of seconds per token, of ``what``. Raises InvalidError for what is not positive and finite."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise InvalidError(f"{what} times of shape {x.shape}", expected="a flat list of seconds per token")
    bad = x[~(np.isfinite(x) & (x > 0))]
    if bad.size:
        raise InvalidError(
            f"a {what} time of {bad[0]} s per token",
            expected="positive, finite seconds",
            remedy="look at the record, and measure that again: a clock went backwards or a block was empty",
        )
    return np.log(x)


def _rank_correlation(x: Floats, y: Floats) -> float:
    """Spearman's; 0 where either is constant."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(_ranks(x), _ranks(y))[0, 1], -1.0, 1.0))


def _ranks(x: Floats) -> Floats:
    """Ranks from 1, equal values sharing their mean rank. scipy.stats has it, and takes a second to import."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
