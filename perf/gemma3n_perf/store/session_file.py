"""One session as one pytest-benchmark file: what is written, and what is believed when it is read back.

Opinion: a record that is half right is wrong. Reading checks everything a comparison rests on, and
says which file, which place in it, and what should have stood there.

pytest-benchmark owns the file. Ours is ``machine_info.gemma3n_perf`` (a ``Header``) once, and
``extra_info.gemma3n_perf`` (a ``Measurement``) on every benchmark that measured a workload.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.store.checks import check_measurement
from gemma3n_perf.store.types import Header, Session

SCHEMA = 1
KEY = "gemma3n_perf"
_HEADER = f"$.machine_info.{KEY}"
_REMEDY = "restore the file from version control, or move it away; it is left untouched"
_CLASS = re.compile(r"[a-z0-9][a-z0-9._-]*")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Stats:
    data: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Extra:
    gemma3n_perf: Measurement | None = None


@dataclass(frozen=True, slots=True)
class _Benchmark:
    fullname: str
    extra_info: _Extra
    stats: _Stats


@dataclass(frozen=True, slots=True)
class _Machine:
    gemma3n_perf: Header


@dataclass(frozen=True, slots=True)
class _Commit:
    id: str | None = None


@dataclass(frozen=True, slots=True)
class _Document:
    machine_info: _Machine
    commit_info: _Commit
    benchmarks: tuple[_Benchmark, ...]
    datetime: str


@dataclass(frozen=True, slots=True)
class _SchemaOnly:
    schema: int


@dataclass(frozen=True, slots=True)
class _MachineProbe:
    gemma3n_perf: _SchemaOnly


@dataclass(frozen=True, slots=True)
class _Probe:
    machine_info: _MachineProbe


def header_json(chip: Chip, stack: Stack, session: str, planted: float = 0.0) -> dict[str, Any]:
    """Return what belongs under ``machine_info["gemma3n_perf"]``."""
    built: dict[str, Any] = msgspec.to_builtins(Header(SCHEMA, chip, stack, session, planted))
    return built


def measurement_json(measurement: Measurement) -> dict[str, Any]:
    """Return what belongs under a benchmark's ``extra_info["gemma3n_perf"]``."""
    built: dict[str, Any] = msgspec.to_builtins(measurement)
    return built


def encode(document: Mapping[str, Any], *, source: str = "this session") -> bytes:
    """Turn pytest-benchmark's output, our payloads in place, into the bytes of a session file.

    The host name is dropped: it identifies a person's machine, never a chip class. One benchmark a
    line keeps diffs readable. Raises MalformedRecordError where ``decode`` would refuse the result.
    """
    parts = dict(document)
    machine = dict(parts.get("machine_info") or {})
    machine.pop("node", None)
    parts["machine_info"] = machine
    _refuse_non_finite(parts, source)
    benchmarks = ",\n".join(_dumps(one) for one in parts.get("benchmarks") or ())
    lines = [f"{_dumps(name)}: {_dumps(value)}" for name, value in parts.items() if name != "benchmarks"]
    data = ("{\n" + ",\n".join([*lines, f'"benchmarks": [\n{benchmarks}\n]']) + "\n}\n").encode()
    decode(data, source=source)
    return data


def decode(data: bytes, *, source: str) -> Session:
    """Read a session file's bytes; ``source`` names the file in errors.

    Raises MalformedRecordError naming the file, the place in it and what was expected there.
    """
    _check_schema(data, source)
    document = _typed(data, _Document, source)
    header = document.machine_info.gemma3n_perf
    if not header.session.strip():
        raise malformed(source, f"{_HEADER}.session", "the session has no id", "an id no other session has")
    if _CLASS.fullmatch(header.chip.chip_class) is None:
        found = f"chip class {header.chip.chip_class!r} cannot name a folder"
        raise malformed(source, f"{_HEADER}.chip.chip_class", found, "lower-case letters, digits, dots and dashes")
    if not (math.isfinite(header.planted) and header.planted >= 0):
        raise malformed(source, f"{_HEADER}.planted", f"planted is {header.planted}", "a fraction, 0 where none")
    commit = document.commit_info.id
    if commit not in (None, "unversioned", header.stack.commit):
        raise malformed(
            source,
            "$.commit_info.id",
            f"pytest-benchmark saw commit {commit}, the session was measured at {header.stack.commit}",
            "one commit in one file",
        )
    return Session(
        id=header.session,
        chip=header.chip,
        stack=header.stack,
        planted=header.planted,
        recorded=document.datetime,
        measurements=_measurements(document, source),
    )


def malformed(source: str, path: str, found: str, expected: str, remedy: str = _REMEDY) -> MalformedRecordError:
    """Build the error for a fault at JSON ``path`` of ``source``."""
    return MalformedRecordError(f"{source}: {path}: {found}", expected=expected, remedy=remedy)


def _measurements(document: _Document, source: str) -> tuple[Measurement, ...]:
    found: dict[str, Measurement] = {}
    for index, benchmark in enumerate(document.benchmarks):
        measurement = benchmark.extra_info.gemma3n_perf
        if measurement is None:
            continue
        here = f"$.benchmarks[{index}]"
        if not benchmark.stats.data or not all(math.isfinite(value) and value > 0 for value in benchmark.stats.data):
            raise malformed(source, f"{here}.stats.data", "raw samples are missing or not positive", "positive seconds")
        fault = check_measurement(measurement)
        if fault is not None:
            raise malformed(source, f"{here}.extra_info.{KEY}.{fault.path}", fault.found, fault.expected)
        planted = document.machine_info.gemma3n_perf.planted
        if measurement.planted != planted:
            raise malformed(
                source,
                f"{here}.extra_info.{KEY}.planted",
                f"planted {measurement.planted:g} in a session that planted {planted:g}",
                "one planted slowdown in one session",
            )
        # Throughput, prefill and memory benchmarks of a workload share its one measurement.
        if found.setdefault(measurement.workload, measurement) != measurement:
            raise malformed(
                source,
                f"{here}.extra_info.{KEY}",
                f"a second, different measurement of {measurement.workload}",
                "one measurement per workload in a session",
            )
    if not found:
        raise malformed(source, "$.benchmarks", "no workload was measured", "at least one measurement")
    return tuple(found.values())


def _check_schema(data: bytes, source: str) -> None:
    schema = _typed(data, _Probe, source).machine_info.gemma3n_perf.schema
    if schema != SCHEMA:
        raise malformed(
            source,
            f"{_HEADER}.schema",
            f"schema {schema}",
            f"schema {SCHEMA}",
            "read it with the release that wrote it, or record it again",
        )


def _typed(data: bytes, kind: type[_T], source: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at ")
        raise malformed(source, path.strip("`") or "$", text, "a session file of this suite") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _name_non_finite(data, source)
        raise malformed(source, "$", f"not JSON: {error}", "a whole session file") from error


def _name_non_finite(data: bytes, source: str) -> None:
    """Python's own json writes NaN and Infinity, which are not JSON: say where rather than 'not JSON'."""
    try:
        lenient = json.loads(data)
    except (ValueError, RecursionError):
        return
    _refuse_non_finite(lenient, source)


def _refuse_non_finite(value: object, source: str) -> None:
    for path, number in _floats(value, "$"):
        if not math.isfinite(number):
            raise malformed(source, path, f"the number is {number}", "a finite number")


def _floats(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _floats(inner, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _floats(inner, f"{path}[{index}]")


def _dumps(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
