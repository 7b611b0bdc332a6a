"""Verdicts and series for teams that have a dashboard: Bencher's metric format, and github-action-benchmark's.

Sources: https://bencher.dev/docs/reference/bencher-metric-format, and ``customBiggerIsBetter`` of
https://github.com/benchmark-action/github-action-benchmark. Neither has a word for "cannot tell": a verdict is the
effect with its interval, and what has none is left out and said, never a number.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gemma3n_perf.duel import record as duels
from gemma3n_perf.errors import MalformedRecordError, NotMeasuredError, UsageError
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.stats.verdicts import Judgement, finite
from gemma3n_perf.store import session_file
from gemma3n_perf.store.files import contents

FORMATS = ("bencher", "github-action-benchmark")


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a workload; ``low`` and ``high`` bound it, ``said`` is the verdict or where it comes from."""

    workload: str
    measure: str
    unit: str
    value: float
    low: float
    high: float
    said: str


@dataclass(frozen=True, slots=True)
class Report:
    """What one file holds: of which commit, when (ISO 8601) and on which chip class; ``missing`` has no number."""

    commit: str
    date: str
    chip_class: str
    metrics: tuple[Metric, ...]
    missing: tuple[str, ...] = ()


def read(path: Path) -> Report:
    """Read a stored session, the record of a duel, or evidence. Raises UsageError, MalformedRecordError."""
    try:
        data = contents(path)
        tree = msgspec.json.decode(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", expected="a file that this suite wrote") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedRecordError(f"{path}: not JSON: {error}", expected="a file that this suite wrote") from error
    keys = tree.keys() if isinstance(tree, dict) else ()
    if "benchmarks" in keys:
        return _of_session(data, path)
    if "duels" in keys:
        return _of_duel(data, path)
    if "fusion" in keys:
        return _of_evidence(evidence.decode(data, str(path)))
    raise UsageError(
        f"{path} holds no session, duel or evidence",
        expected="a session of baselines/, what duel --json wrote, or evidence of a fusion",
    )


def export(reports: Sequence[Report], name: str) -> bytes:
    """Return one report in a format, several as a series: a list, oldest first, each with commit, date and class.

    Raises NotMeasuredError where there is no number at all.
    """
    if not any(one.metrics for one in reports):
        missing = "; ".join(text for one in reports for text in one.missing) or "the files are empty"
        raise NotMeasuredError(f"there is no number to export: {missing}", expected="a workload that was measured")
    of = _bencher if name == FORMATS[0] else _github
    if len(reports) == 1:
        return msgspec.json.format(msgspec.json.encode(of(reports[0])))
    series = [_point(one, of(one), name) for one in sorted(reports, key=lambda one: _time(one.date))]
    return msgspec.json.format(msgspec.json.encode(series))


def _point(report: Report, content: Any, name: str) -> dict[str, Any]:
    if name == FORMATS[0]:
        return {"hash": report.commit, "date": report.date, "testbed": report.chip_class, "results": content}
    commit = {"id": report.commit, "timestamp": report.date, "message": report.chip_class}
    milliseconds = round(1000 * _time(report.date).timestamp())
    return {"commit": commit, "date": milliseconds, "tool": "customBiggerIsBetter", "benches": content}


def _bencher(report: Report) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in report.metrics:
        metric = {"value": one.value, "lower_value": one.low, "upper_value": one.high}
        found.setdefault(one.workload, {})[one.measure] = metric
    return found


def _github(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{one.workload} {one.measure} ({report.chip_class})",
            "unit": one.unit,
            "value": one.value,
            "range": f"[{one.low:.4g}, {one.high:.4g}]",
            "extra": one.said,
        }
        for one in report.metrics
    ]


def _of_session(data: bytes, path: Path) -> Report:
    session = session_file.decode(data, source=str(path))
    if session.planted:
        raise UsageError(f"{path}: a slowdown was planted in it", expected="a session of the code as it is")
    metrics = []
    for one in session.measurements:
        rates = [1 / run.tpot_s for run in one.runs]
        said = f"median of {len(rates)} runs, lowest and highest beside it"
        value = 1 / one.session_tpot_s
        metrics.append(Metric(one.workload, "throughput", "tok/s", value, min(rates), max(rates), said))
    commit = session.stack.commit or ""
    return Report(commit, session.recorded, session.chip.chip_class, tuple(metrics))


def _of_duel(data: bytes, path: Path) -> Report:
    record = duels.DUELS.decode(data, str(path))
    if any(record.planted.values()):
        raise UsageError(f"{path}: a slowdown was planted in it", expected="a duel of the code as it is")
    arms = f"{record.arms['candidate']} against {record.arms['baseline']}"
    judged = [(one.workload, one.judgement) for one in record.duels]
    judged += [(f"{one.workload} TTFT", one.ttft) for one in record.duels if one.ttft is not None]
    stack = record.stacks.get("candidate")
    return _of_judged((stack.commit if stack else None) or "", record.date, record.chip.chip_class, judged, arms)


def _of_evidence(record: evidence.Evidence) -> Report:
    judged = [(f"{one.workload} {record.fusion}", one.judgement) for one in record.workloads]
    return _of_judged(record.commit or "", record.date, record.chip.chip_class, judged, f"fusion {record.fusion}")


def _of_judged(commit: str, date: str, chip: str, judged: Sequence[tuple[str, Judgement]], arms: str) -> Report:
    metrics, missing = [], []
    for name, one in judged:
        low, high = finite(one.low), finite(one.high)
        if one.effect is None or low is None or high is None:
            missing.append(f"{name}: {one.verdict}: {one.reason}")
        else:
            said = f"{one.verdict}: {arms}"
            metrics.append(Metric(name, "change", "%", 100 * one.effect, 100 * low, 100 * high, said))
    return Report(commit, date, chip, tuple(metrics), tuple(missing))


def _time(text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise MalformedRecordError(
            f"{text[:40]!r} is no date", expected="ISO 8601", remedy="restore the record from version control"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
