"""What a baseline says of each workload, in a few numbers: for listings and pages, never for verdicts."""

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.store.types import Baseline


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


@dataclass(frozen=True, slots=True)
class ConditionsSummary:
    """How the machine fared over all runs that count; ``None`` where no run knows. Fractions 0..1, hertz, Celsius."""

    runs: int
    discarded: dict[str, int]
    load1: tuple[float, float] | None
    steal: tuple[float, float] | None
    foreign_cpu: tuple[float, float] | None
    gpu_clock_hz: tuple[float, float] | None
    gpu_temperature_c: tuple[float, float] | None
    power_sources: tuple[str, ...]
    thermal: tuple[str, ...]
    throttle_reasons: tuple[str, ...] | None


def summarise(baseline: Baseline, workload: str) -> WorkloadSummary:
    """Return the numbers of one workload; it must be one of ``baseline.workloads``."""
    measured = baseline.sessions_of(workload)
    rates = tuple(1 / one.session_tpot_s for one in measured)
    withins = [_relative_spread([1 / run.tpot_s for run in one.runs]) for one in measured]
    known = [value for value in withins if value is not None]
    ttft = [statistics.median(one.ttft_s) for one in measured if one.ttft_s]
    newest = measured[-1]
    return WorkloadSummary(
        workload=workload,
        engine=newest.engine,
        sessions_tokps=rates,
        tokps=statistics.median(rates),
        spread=_relative_spread(rates),
        within=statistics.median(known) if known else None,
        tpot_s=statistics.median(one.session_tpot_s for one in measured),
        ttft_s=statistics.median(ttft) if ttft else None,
        peak_memory_bytes=max(one.peak_memory_bytes for one in measured),
        kv_bytes=newest.kv_bytes,
        streamed_bytes=newest.streamed_bytes,
        runs=sum(len(one.runs) for one in measured),
        discarded=sum(len(one.discarded) for one in measured),
        soft_tokens=newest.soft_tokens,
    )


def conditions_of(measurements: Iterable[Measurement]) -> ConditionsSummary:
    """Return the conditions of all runs that count, and why the others were discarded."""
    measured = tuple(measurements)
    runs = [run for one in measured for run in one.runs]
    faults = Counter(fault for one in measured for run in one.discarded for fault in run.faults)
    throttled = [run.conditions.throttle_reasons for run in runs if run.conditions.throttle_reasons is not None]
    return ConditionsSummary(
        runs=len(runs),
        discarded=dict(sorted(faults.items())),
        load1=_range(run.conditions.load1 for run in runs),
        steal=_range(run.conditions.steal for run in runs),
        foreign_cpu=_range(run.conditions.foreign_cpu for run in runs),
        gpu_clock_hz=_range(run.conditions.gpu_clock_hz for run in runs),
        gpu_temperature_c=_range(run.conditions.gpu_temperature_c for run in runs),
        power_sources=_words(run.conditions.power_source for run in runs),
        thermal=_words(run.conditions.thermal for run in runs),
        throttle_reasons=tuple(sorted({reason for one in throttled for reason in one})) if throttled else None,
    )


def _relative_spread(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return statistics.stdev(values) / math.fsum(values) * len(values)


def _range(values: Iterable[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def _words(values: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value is not None}))
