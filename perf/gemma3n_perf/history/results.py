"""What was measured of one commit on one chip class, pooled over its sessions. Pure: no file is read here."""

import datetime as dt
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.special import stdtrit

from gemma3n_perf.store.types import Session

ENV = "suite"
"""The one environment name, and so the one series, whatever the Python or the operating system."""


@dataclass(frozen=True, slots=True)
class Value:
    """One workload's value on one commit: the ``result``, its 99 % interval and the raw ``samples`` behind it.

    Seconds per token, or tok/s. ``result`` None is a failure that was recorded. Without bounds the interval is
    unbounded, which asv reads as "cannot tell".
    """

    result: float | None
    samples: tuple[float, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def inverse(self) -> "Value":
        """Return tok/s of seconds per token, or the other way round."""
        if self.result is None:
            return Value(None)
        low = 1 / self.high if math.isfinite(self.high) else -math.inf
        high = 1 / self.low if self.low > 0 else math.inf
        return Value(1 / self.result, tuple(1 / one for one in self.samples), low, high)


@dataclass(frozen=True, slots=True)
class ResultFile:
    """All results of one commit on one machine.

    date        the commit's, milliseconds since 1970
    params      the machine's axes
    times       seconds per token by workload id; throughput is written beside it, and follows from it
    started_at  when the first of them was measured, milliseconds since 1970
    others      rows of benchmarks that this suite does not know, by column, kept as they were found
    """

    machine: str
    commit: str
    date: int
    params: dict[str, str]
    times: dict[str, Value]
    started_at: int | None = None
    env: str = ENV
    others: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name below its machine's folder."""
        return f"{self.commit[:8]}-{self.env}.json"


def value_of(sessions: Sequence[Sequence[float]]) -> Value:
    """Return the value of runs in seconds per token, grouped by session.

    The result is the median of the sessions' medians. Its 99 % interval comes from the spread *between* sessions (t, on
    logarithms), because runs of one session share what disturbed it; one session alone has no bounded interval.
    """
    middles = [statistics.median(one) for one in sessions if one]
    samples = tuple(value for one in sessions for value in one)
    middle = statistics.median(middles)
    if len(middles) < 2:
        return Value(middle, samples)
    spread = statistics.stdev(math.log(value) for value in middles)
    half = float(stdtrit(len(middles) - 1, 0.995)) * spread / math.sqrt(len(middles))
    return Value(middle, samples, middle * math.exp(-half), middle * math.exp(half))


def with_sessions(stored: ResultFile, sessions: Sequence[Session]) -> ResultFile:
    """Return ``stored`` with what the sessions measured and it does not hold yet; nothing that it holds is lost."""
    times = dict(stored.times)
    for workload in dict.fromkeys(one.workload for session in sessions for one in session.measurements):
        measured = [one for session in sessions if (one := session.measurement(workload)) is not None]
        runs = [tuple(run.tpot_s for run in one.runs) for one in measured]
        new = {value for one in runs for value in one}
        # Seconds carry some 15 digits, so a sample that is there already is that very run.
        samples = times[workload].samples if workload in times else ()
        if not new <= set(samples):
            times[workload] = value_of([[value for value in samples if value not in new], *runs])
    return replace(stored, times=times, started_at=stored.started_at or min(map(milliseconds, sessions)))


def joined(one: ResultFile, other: ResultFile) -> ResultFile:
    """Return one commit's results in two environments as one: the one with more samples first, the other fills gaps."""
    fewer, more = sorted((other, one), key=lambda file: sum(len(value.samples) for value in file.times.values()))
    return replace(more, times=fewer.times | more.times)


def milliseconds(session: Session) -> int:
    """Return when a session was recorded, since 1970; 0 where its clock said nothing that can be used."""
    try:
        moment = dt.datetime.fromisoformat(session.recorded)
    except ValueError:
        return 0
    return max(0, int(moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp() * 1000))
