"""What the store gives out: sessions as read back, the baselines they make up, and a few numbers of each workload."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.hardware.types import Chip, Stack

COMMITTED = "committed"
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Session:
    """One ``pytest perf/`` run as read back: ``recorded`` is ISO 8601, one measurement per workload.

    ``busy`` says what the machine suffered from, where it was measured nevertheless.
    """

    id: str
    chip: Chip
    stack: Stack
    planted: float
    recorded: str
    measurements: tuple[Measurement, ...]
    busy: str | None = None

    def measurement(self, workload: str) -> Measurement | None:
        """Return what this session measured of ``workload``, or None."""
        return next((one for one in self.measurements if one.workload == workload), None)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Sessions of one chip class, one stack and one commit, oldest first; ``files`` are their names, in step.

    ``label`` says where they come from: ``committed`` in the repository, or ``local`` to this machine.
    """

    chip: Chip
    stack: Stack
    sessions: tuple[Session, ...]
    label: str
    files: tuple[str, ...]

    @property
    def workloads(self) -> tuple[str, ...]:
        """Ids of all workloads that any session measured, in order of first appearance."""
        return tuple(dict.fromkeys(one.workload for session in self.sessions for one in session.measurements))

    def sessions_of(self, workload: str) -> tuple[Measurement, ...]:
        """Return the measurements of ``workload``, one a session, oldest first; empty where there is none."""
        found = (session.measurement(workload) for session in self.sessions)
        return tuple(one for one in found if one is not None)


@dataclass(frozen=True, slots=True)
class WorkloadSummary:
    """One workload over the sessions of a baseline.

    ``tokps`` is the median over sessions of each session's throughput, ``sessions_tokps`` those throughputs,
    oldest first. ``spread`` is their sample standard deviation over their mean, None for a single session;
    ``within`` the median over sessions of the same for a session's runs. Times in seconds, sizes in bytes.
    """

    workload: str
    engine: str
    sessions_tokps: tuple[float, ...]
    tokps: float
    spread: float | None
    within: float | None
    tpot_s: float
    ttft_s: float | None
    peak_memory_bytes: int
    kv_bytes: int
    streamed_bytes: int
    runs: int
    discarded: int
    soft_tokens: str | None


def summarise(baseline: Baseline, workload: str) -> WorkloadSummary:
    """Return the numbers of one workload; it must be one of ``baseline.workloads``."""
    measured = baseline.sessions_of(workload)
    rates = tuple(1 / one.session_tpot_s for one in measured)
    spreads = (_relative_spread([1 / run.tpot_s for run in one.runs]) for one in measured)
    within = [value for value in spreads if value is not None]
    ttft = [statistics.median(one.ttft_s) for one in measured if one.ttft_s]
    newest = measured[-1]
    return WorkloadSummary(
        workload=workload,
        engine=newest.engine,
        sessions_tokps=rates,
        tokps=statistics.median(rates),
        spread=_relative_spread(rates),
        within=statistics.median(within) if within else None,
        tpot_s=statistics.median(one.session_tpot_s for one in measured),
        ttft_s=statistics.median(ttft) if ttft else None,
        peak_memory_bytes=max(one.peak_memory_bytes for one in measured),
        kv_bytes=newest.kv_bytes,
        streamed_bytes=newest.streamed_bytes,
        runs=sum(len(one.runs) for one in measured),
        discarded=sum(len(one.discarded) for one in measured),
        soft_tokens=newest.soft_tokens,
    )


def _relative_spread(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return statistics.stdev(values) / math.fsum(values) * len(values)
