"""asv's files, typed: results of one commit on one machine, the machine, and the list of benchmarks.

asv's own reader believes what it parses, and a wrong type ends its publish in a traceback. So every file is read here
first; what is not a result file is named and left out, and never touched.

The formats are those of asv 0.6.6 (``asv/results.py``, api_version 2; ``asv/machine.py``, 1; ``asv/benchmarks.py``, 2).
"""

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.history.results import ENV, ResultFile, Value
from gemma3n_perf.store.files import Disk, contents, write_over

RESULTS_VERSION, MACHINE_VERSION, BENCHMARKS_VERSION = 2, 1, 2
TIME, RATE = "decode.track_time_per_token", "decode.track_throughput"
"""Frozen: a renamed benchmark starts its history anew."""

VERSION = "1"
"""Of both benchmarks: what another version measured is no part of the series."""

_COLUMNS = (
    "result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25",
    "stats_q_75", "stats_number", "stats_repeat", "samples", "profile",
)  # fmt: skip


class Derived(Disk):
    """Writes without waiting for the disk: asv results follow from session files, so a lost one is imported again."""

    def write(self, path: Path, data: bytes) -> None:
        """Create ``path`` with ``data``."""
        with path.open("xb") as file:
            file.write(data)


class _Document(msgspec.Struct):
    commit_hash: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")]
    date: int
    params: dict[str, Any]
    result_columns: list[str]
    results: dict[str, list[Any]]
    env_name: str = ENV


def read_result(path: Path) -> ResultFile:
    """Read one result file. Raises MalformedRecordError where asv could not use it, or another version measured it."""
    data = _object(path)
    if data.get("version") != RESULTS_VERSION:
        raise malformed(path, f"version {data.get('version')}", f"version {RESULTS_VERSION}; asv update makes it")
    try:
        file = msgspec.convert(data, _Document)
        params = {key: "" if value is None else str(value) for key, value in file.params.items()}
        rows = {name: dict(zip(file.result_columns, row, strict=False)) for name, row in file.results.items()}
        time, rate = rows.pop(TIME, {}), rows.pop(RATE, {})
        times = {name: value.inverse() for name, value in _values(rate).items()} | _values(time)
    except (msgspec.ValidationError, KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise malformed(path, f"{type(error).__name__}: {error}", "a result file of asv") from error
    if params.get("machine") != path.parent.name:
        raise malformed(path, f"results of machine {params.get('machine')}", "those of the machine of its folder")
    if unknown := set(file.result_columns) - set(_COLUMNS):
        raise malformed(path, f"columns {', '.join(sorted(unknown))}", "columns that asv knows")
    if {str(row.get("version", VERSION)) for row in (time, rate)} != {VERSION}:
        raise malformed(path, "measured by another version of the benchmark", f"version {VERSION}")
    return ResultFile(
        path.parent.name, file.commit_hash, file.date, params, times, time.get("started_at"), file.env_name, rows
    )


def write(
    results: Path,
    files: Iterable[ResultFile],
    machines: Iterable[Mapping[str, str]],
    workloads: Iterable[str] = (),
) -> None:
    """Write machines, result files and ``benchmarks.json`` below ``results``. Raises DiskFullError.

    The benchmarks are over ``workloads``, those of the files, and those that ``benchmarks.json`` names already.
    """
    names = {*workloads, *read_benchmarks(results)}
    for axes in machines:
        write_machine(results, axes)
    for one in files:
        write_result(results, one)
        names |= one.times.keys()
    document = {name: description(name, sorted(names)) for name in (TIME, RATE)}
    _write(results / "benchmarks.json", document | {"version": BENCHMARKS_VERSION})


def write_result(results: Path, one: ResultFile) -> Path:
    """Write a result file, whole or not at all; returns its path. Raises DiskFullError."""
    path = results / one.machine / one.name
    write_over(path, encode_result(one), Derived())
    return path


def encode_result(one: ResultFile) -> bytes:
    """Return a result file's bytes: the same for the same content, so that importing twice changes nothing."""
    rates = {name: value.inverse() for name, value in one.times.items()}
    rows = {RATE: _row(rates, one.started_at), TIME: _row(one.times, one.started_at), **one.others}
    document = {
        "commit_hash": one.commit,
        "env_name": one.env,
        "date": one.date,
        "params": one.params,
        "python": "",
        "requirements": {},
        "env_vars": {},
        "result_columns": list(_COLUMNS),
        "results": {name: _trimmed([row.get(column) for column in _COLUMNS]) for name, row in rows.items()},
        "durations": {},
        "version": RESULTS_VERSION,
    }
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def machine_axes(chip: Chip) -> dict[str, str]:
    """Return what asv calls a machine: the chip class, with its axes. Nothing that an update changes is among them."""
    return {
        "machine": chip.chip_class,
        "chip_class": chip.chip_class,
        "vendor": chip.vendor,
        "gpu_cores": "none" if chip.gpu_cores is None else str(chip.gpu_cores),
        "memory": "unknown" if chip.memory_bytes is None else f"{round(chip.memory_bytes / 1e9)} GB",
    }


def write_machine(results: Path, axes: Mapping[str, str]) -> None:
    """Write ``machine.json`` of one machine; an existing one is left as it is."""
    path = results / axes["machine"] / "machine.json"
    if not path.exists():
        _write(path, {**axes, "version": MACHINE_VERSION})


def read_machine(folder: Path) -> dict[str, str]:
    """Return the axes of the machine whose results are in ``folder``. Raises MalformedRecordError."""
    path = folder / "machine.json"
    if not path.is_file():
        raise malformed(folder, "results of a machine that is not known: no machine.json", "its machine.json")
    data = _object(path)
    if data.get("version") != MACHINE_VERSION or data.get("machine") != folder.name:
        raise malformed(path, f"machine {data.get('machine')!r}", f"machine {folder.name!r}, version {MACHINE_VERSION}")
    return {key: str(value) for key, value in data.items() if key != "version"}


def read_benchmarks(results: Path) -> tuple[str, ...]:
    """Return the workloads that ``benchmarks.json`` names; none where it is absent or not to be used."""
    try:
        data = json.loads(contents(results / "benchmarks.json"))
        return tuple(str(one)[1:-1] for one in data[TIME]["params"][0])
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
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
        "version": VERSION,
    }


def result_files(results: Path, machine: str = "*") -> list[Path]:
    """Return every result file of a machine below ``results``, sorted; ``machine.json`` is none."""
    return sorted(path for path in results.glob(f"{machine}/*.json") if path.name != "machine.json")


def malformed(path: Path, found: str, expected: str) -> MalformedRecordError:
    """Build the error for a file that is not what it should be."""
    return MalformedRecordError(f"{path}: {found}", expected=expected, remedy="it is left as it is; the rest is used")


def _object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(contents(path))
    except (OSError, ValueError, RecursionError) as error:
        raise malformed(path, f"cannot be read: {error}", "a file that asv or this suite wrote") from error
    if not isinstance(data, dict):
        raise malformed(path, f"a JSON {type(data).__name__}", "a JSON object")
    return data


def _write(path: Path, document: Mapping[str, Any]) -> None:
    write_over(path, json.dumps(document, indent=4, sort_keys=True).encode() + b"\n", Derived())


def _values(row: Mapping[str, Any]) -> dict[str, Value]:
    """Return one benchmark's values by workload id; none of a row that is not there."""
    names = [str(one)[1:-1] for one in row["params"][0]] if row.get("params") else []
    columns = [row.get(name) or [None] * len(names) for name in ("result", "samples", "stats_ci_99_a", "stats_ci_99_b")]
    times = (*columns[0], *itertools.chain(*filter(None, columns[1])))
    if wrong := [one for one in times if one is not None and one <= 0]:
        raise ValueError(f"{wrong[0]} of what is more than 0")
    return {
        name: Value(
            None if result is None or math.isnan(result) else float(result),
            tuple(float(one) for one in samples or ()),
            -math.inf if low is None else float(low),
            math.inf if high is None else float(high),
        )
        for name, result, samples, low, high in zip(names, *columns, strict=True)
    }


def _row(values: Mapping[str, Value], started_at: int | None) -> dict[str, Any]:
    def column(of: Callable[[Value], Any]) -> list[Any] | None:
        found = [None if one.result is None else of(one) for one in values.values()]
        return found if any(one is not None for one in found) else None

    return {
        "result": column(lambda one: one.result),
        "params": [[repr(name) for name in values]],
        "version": VERSION,
        "started_at": started_at,
        "stats_ci_99_a": column(lambda one: one.low),
        "stats_ci_99_b": column(lambda one: one.high),
        "stats_q_25": column(lambda one: _quantile(one, 0.25)),
        "stats_q_75": column(lambda one: _quantile(one, 0.75)),
        "stats_number": column(lambda _: 1),
        "stats_repeat": column(lambda one: len(one.samples)),
        "samples": column(lambda one: list(one.samples)),
    }


def _trimmed(row: list[Any]) -> list[Any]:
    while row and row[-1] is None:
        row.pop()
    return row


def _quantile(value: Value, share: float) -> float | None:
    ordered = sorted(value.samples)
    return ordered[round(share * (len(ordered) - 1))] if ordered else value.result
