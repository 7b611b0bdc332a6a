"""asv's files, typed: results of one commit on one machine, the machine, and the list of benchmarks.

Opinion: asv's own reader believes what it parses and a wrong type ends its publish in a traceback. So every file is
read here first; what is not a result file is named and kept out, and never touched.

The formats are those of asv 0.6.6 (``asv/results.py``, api_version 2; ``asv/machine.py``, 1; ``asv/benchmarks.py``, 2).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store.files import Disk, write_over

RESULTS_VERSION, MACHINE_VERSION, BENCHMARKS_VERSION = 2, 1, 2
ENV = "suite"
"""The one environment name, and so the one series, whatever the Python or the operating system."""

HASH_LENGTH = 8
TIME, RATE = "decode.track_time_per_token", "decode.track_throughput"
"""Frozen: a renamed benchmark starts its history anew."""

_COLUMNS = (
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25",
    "stats_q_75", "stats_number", "stats_repeat", "samples", "profile",
)  # fmt: skip
_SKIPPED = frozenset({"machine.json", "benchmarks.json"})


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


@dataclass(frozen=True, slots=True)
class Entry:
    """One benchmark of a result file: values by workload id. ``columns`` holds what asv stored besides."""

    values: dict[str, Value]
    started_at: int | None = None
    version: str = "1"


@dataclass(frozen=True, slots=True)
class ResultFile:
    """All results of one commit on one machine. ``date`` is the commit's, milliseconds since 1970.

    ``others`` are rows of benchmarks that this suite does not know, kept as they were found.
    """

    machine: str
    commit: str
    date: int
    params: dict[str, str]
    entries: dict[str, Entry]
    env: str = ENV
    others: dict[str, tuple[tuple[str, ...], list[Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name below its machine's folder."""
        return f"{self.commit[:HASH_LENGTH]}-{self.env}.json"


def read_result(path: Path) -> ResultFile:
    """Read one result file. Raises MalformedRecordError where asv could not use it."""
    data = _object(path)
    try:
        params = {str(key): "" if value is None else str(value) for key, value in dict(data["params"]).items()}
        commit, date, rows = data["commit_hash"], data["date"], data["results"]
        columns = tuple(str(name) for name in data["result_columns"])
        if data.get("version") != RESULTS_VERSION:
            raise malformed(path, f"version {data.get('version')}", f"version {RESULTS_VERSION}; asv update makes it")
        if not (isinstance(commit, str) and len(commit) == 40 and isinstance(date, int) and isinstance(rows, dict)):
            raise malformed(path, "no commit, date or results", "a result file of asv")
        if "machine" not in params or not set(columns) <= set(_COLUMNS):
            raise malformed(path, "no machine, or columns that asv does not know", "a result file of asv")
        ours: dict[str, Entry] = {}
        others: dict[str, tuple[tuple[str, ...], list[Any]]] = {}
        for name, row in rows.items():
            if name in (TIME, RATE):
                ours[name] = _entry(dict(zip(columns, row, strict=False)))
            else:
                others[name] = (columns, list(row))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise malformed(path, f"{type(error).__name__}: {error}", "a result file of asv") from error
    return ResultFile(params["machine"], commit, date, params, ours, str(data.get("env_name", ENV)), others)


def write_result(results: Path, one: ResultFile, disk: Disk | None = None) -> Path:
    """Write a result file, whole or not at all; returns its path. Raises DiskFullError."""
    path = results / one.machine / one.name
    write_over(path, encode_result(one), disk)
    return path


def encode_result(one: ResultFile) -> bytes:
    """Return a result file's bytes: the same for the same content, so that importing twice changes nothing."""
    rows = {name: _row(entry) for name, entry in sorted(one.entries.items())}
    for name, (columns, row) in sorted(one.others.items()):
        by_name = dict(zip(columns, row, strict=False))
        rows[name] = _trimmed([by_name.get(column) for column in _COLUMNS])
    document = {
        "commit_hash": one.commit,
        "env_name": one.env,
        "date": one.date,
        "params": one.params,
        "python": "",
        "requirements": {},
        "env_vars": {},
        "result_columns": list(_COLUMNS),
        "results": rows,
        "durations": {},
        "version": RESULTS_VERSION,
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def machine(chip: Chip) -> dict[str, str]:
    """Return what asv calls a machine: the chip class, with its axes. Nothing that an update changes is among them."""
    memory = "unknown" if chip.memory_bytes is None else f"{round(chip.memory_bytes / 1e9)} GB"
    return {
        "machine": chip.chip_class,
        "chip_class": chip.chip_class,
        "vendor": chip.vendor,
        "gpu_cores": "none" if chip.gpu_cores is None else str(chip.gpu_cores),
        "memory": memory,
    }


def write_machine(results: Path, axes: Mapping[str, str], disk: Disk | None = None) -> None:
    """Write ``machine.json`` of one machine; an existing one is left as it is."""
    path = results / axes["machine"] / "machine.json"
    if not path.exists():
        document = {**axes, "version": MACHINE_VERSION}
        write_over(path, json.dumps(document, indent=4, sort_keys=True).encode() + b"\n", disk)


def read_machine(folder: Path) -> dict[str, str]:
    """Return the axes of the machine whose results are in ``folder``. Raises MalformedRecordError."""
    path = folder / "machine.json"
    if not path.is_file():
        raise malformed(folder, "results of a machine that is not known: no machine.json", "its machine.json")
    data = _object(path)
    if data.get("version") != MACHINE_VERSION or data.get("machine") != folder.name:
        raise malformed(path, f"machine {data.get('machine')!r}", f"machine {folder.name!r}, version {MACHINE_VERSION}")
    return {key: str(value) for key, value in data.items() if key != "version"}


def write_benchmarks(results: Path, workloads: Sequence[str], disk: Disk | None = None) -> None:
    """Write ``benchmarks.json``: both benchmarks, over ``workloads`` in order."""
    document: dict[str, Any] = {name: description(name, workloads) for name in (TIME, RATE)}
    document["version"] = BENCHMARKS_VERSION
    write_over(results / "benchmarks.json", json.dumps(document, indent=4, sort_keys=True).encode() + b"\n", disk)


def read_benchmarks(results: Path) -> tuple[str, ...]:
    """Return the workloads that ``benchmarks.json`` names; none where it is absent or not to be used."""
    try:
        data = json.loads((results / "benchmarks.json").read_bytes())
        return tuple(str(one)[1:-1] for one in data[TIME]["params"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return ()


def description(name: str, workloads: Sequence[str]) -> dict[str, Any]:
    """Describe one benchmark as asv's discovery does."""
    timed = name == TIME
    return {
        "code": "",
        "name": name,
        "pretty_name": "time per token" if timed else "tok/s (higher is better)",
        "param_names": ["workload"],
        "params": [[repr(workload) for workload in workloads]],
        "timeout": 3600,
        "type": "track",
        "unit": "seconds" if timed else "tok/s",
        "version": "1",
    }


def result_files(results: Path) -> list[Path]:
    """Return every result file below ``results``, sorted; ``machine.json`` and ``benchmarks.json`` are none."""
    return sorted(path for path in results.glob("*/*.json") if path.name not in _SKIPPED)


def malformed(path: Path, found: str, expected: str) -> MalformedRecordError:
    """Build the error for a file that is not what it should be."""
    return MalformedRecordError(f"{path}: {found}", expected=expected, remedy="it is left as it is; the rest is used")


def _object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise malformed(path, f"cannot be read: {error}", "a file that asv or this suite wrote") from error
    if not isinstance(data, dict):
        raise malformed(path, f"a JSON {type(data).__name__}", "a JSON object")
    return data


def _entry(row: Mapping[str, Any]) -> Entry:
    params = row.get("params") or []
    names = [str(one)[1:-1] for one in params[0]] if params else []
    columns = [_column(row.get(name), len(names)) for name in ("result", "samples", "stats_ci_99_a", "stats_ci_99_b")]
    values = {}
    for name, result, samples, low, high in zip(names, *columns, strict=True):
        values[name] = Value(
            None if result is None or math.isnan(result) else float(result),
            tuple(float(one) for one in samples or ()),
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        )
    return Entry(values, row.get("started_at"), str(row.get("version", "1")))


def _column(values: Any, length: int) -> list[Any]:
    return list(values) if values is not None else [None] * length


def _row(entry: Entry) -> list[Any]:
    values = list(entry.values.values())
    known = [one.result is not None for one in values]
    quartiles = [_quartiles(one) for one in values]
    columns: dict[str, Any] = {
        "result": [one.result for one in values],
        "params": [[repr(name) for name in entry.values]],
        "version": entry.version,
        "started_at": entry.started_at,
        "stats_ci_99_a": [one.low if ok else None for one, ok in zip(values, known, strict=True)],
        "stats_ci_99_b": [one.high if ok else None for one, ok in zip(values, known, strict=True)],
        "stats_q_25": [low for low, _ in quartiles],
        "stats_q_75": [high for _, high in quartiles],
        "stats_number": [1 if ok else None for ok in known],
        "stats_repeat": [len(one.samples) if ok else None for one, ok in zip(values, known, strict=True)],
        "samples": [list(one.samples) if ok else None for one, ok in zip(values, known, strict=True)],
    }
    return _trimmed([_none_if_empty(name, columns.get(name)) for name in _COLUMNS])


def _none_if_empty(name: str, value: Any) -> Any:
    empty = name not in ("params", "version") and isinstance(value, list) and all(one is None for one in value)
    return None if empty else value


def _trimmed(row: list[Any]) -> list[Any]:
    while row and row[-1] is None:
        row.pop()
    return row


def _quartiles(value: Value) -> tuple[float | None, float | None]:
    if value.result is None:
        return None, None
    ordered = sorted(value.samples) or [value.result]
    last = len(ordered) - 1
    return ordered[round(0.25 * last)], ordered[round(0.75 * last)]
