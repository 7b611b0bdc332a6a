"""One session as one pytest-benchmark file: what is written, and what is believed when it is read back.

Opinion: a record that is half right is wrong. Reading checks everything a comparison rests on.

pytest-benchmark owns the file. Ours is ``machine_info.gemma3n_perf`` (a ``Header``) once, and
``extra_info.gemma3n_perf`` (a ``Measurement``) on every benchmark that measured a workload.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from gemma3n_perf.decode.types import Measurement, Run
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.store.codec import Codec, Flaw, not_finite
from gemma3n_perf.store.files import Disk, file_stem, local_folder, write_next
from gemma3n_perf.store.types import Session
from gemma3n_perf.workload.workload import Workload

SCHEMA = 1
KEY = "gemma3n_perf"
HEADER = f"$.machine_info.{KEY}"
"""The JSON path of a session's header."""

_UNSTORED, _NS = "this session", 9
_CLASS = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Header:
    """What all measurements of one session share. ``session`` is unique; ``planted`` as in Measurement.

    ``busy`` says what this machine suffered from throughout, and was allowed to.
    """

    schema: int
    chip: Chip
    stack: Stack
    session: str
    planted: float = 0.0
    busy: str | None = None


class _Stats(msgspec.Struct):
    data: tuple[float, ...]


class _Extra(msgspec.Struct):
    gemma3n_perf: Measurement | None = None


class _Benchmark(msgspec.Struct):
    fullname: str
    extra_info: _Extra
    stats: _Stats


class _Machine(msgspec.Struct):
    gemma3n_perf: Header


class _Commit(msgspec.Struct):
    id: str | None = None


class _Document(msgspec.Struct):
    machine_info: _Machine
    commit_info: _Commit
    benchmarks: tuple[_Benchmark, ...]
    datetime: str


def header_json(
    chip: Chip, stack: Stack, session: str, planted: float = 0.0, busy: str | None = None
) -> dict[str, Any]:
    """Return what belongs under ``machine_info["gemma3n_perf"]``."""
    built: dict[str, Any] = msgspec.to_builtins(Header(SCHEMA, chip, stack, session, planted, busy))
    return built


def measurement_json(measurement: Measurement) -> dict[str, Any]:
    """Return what belongs under a benchmark's ``extra_info["gemma3n_perf"]``.

    Intervals between reads are whole nanoseconds; what the platform did not report is left out.
    """
    built: dict[str, Any] = msgspec.to_builtins(_in_nanoseconds(measurement))
    for run in (*built["runs"], *built["discarded"]):
        run["conditions"] = {name: value for name, value in run["conditions"].items() if value is not None}
    if built["graph"] and built["graph"]["host"] is None:
        del built["graph"]["host"]  # as records without it are written: earlier releases read them
    return built


def encode(document: Mapping[str, Any]) -> bytes:
    """Turn pytest-benchmark's output, our payloads in place, into the bytes of a session file.

    The host name, which is a person's machine's, is dropped. Raises MalformedRecordError where ``decode`` would.
    """
    parts = dict(document)
    machine = parts.get("machine_info") or {}
    parts["machine_info"] = {name: value for name, value in machine.items() if name != "node"}
    for flaw in not_finite(parts):
        raise SESSIONS.malformed(_UNSTORED, flaw)
    benchmarks = ",\n".join(_dumps(one) for one in parts.pop("benchmarks", None) or ())
    lines = [f"{_dumps(name)}: {_dumps(value)}" for name, value in parts.items()]
    data = ("{\n" + ",\n".join([*lines, f'"benchmarks": [\n{benchmarks}\n]']) + "\n}\n").encode()
    decode(data, source=_UNSTORED)
    return data


def decode(data: bytes, *, source: str) -> Session:
    """Read a session file's bytes; ``source`` names it in errors. Raises MalformedRecordError naming the place, too."""
    document = SESSIONS.decode(data, source)
    header = document.machine_info.gemma3n_perf
    measured = (one.extra_info.gemma3n_perf for one in document.benchmarks)
    # Throughput, prefill and memory benchmarks of a workload share its one measurement.
    by_workload = {one.workload: one for one in measured if one is not None}
    return Session(
        id=header.session,
        chip=header.chip,
        stack=header.stack,
        planted=header.planted,
        busy=header.busy,
        recorded=document.datetime,
        measurements=tuple(map(_in_nanoseconds, by_workload.values())),
    )


def _in_nanoseconds(one: Measurement) -> Measurement:
    """Round intervals as they are written today: a session in a file of an older release is equal to itself."""
    runs, discarded = (
        tuple(replace(run, step_s=tuple(round(step, _NS) for step in run.step_s)) for run in kept)
        for kept in (one.runs, one.discarded)
    )
    return replace(one, runs=runs, discarded=discarded)


def save_session(document: Mapping[str, Any], data: Path | None = None, disk: Disk | None = None) -> Path:
    """Store pytest-benchmark's output, payloads in place, as this machine's next session; returns its path.

    Raises MalformedRecordError where the record could not be read back, UsageError where a slowdown was
    planted, DiskFullError with nothing written.
    """
    content = encode(document)
    session = decode(content, source=_UNSTORED)
    if session.planted:
        raise UsageError(
            f"a slowdown of {session.planted:.0%} was planted in this session, so it is not saved",
            expected="a session of the code as it is",
            remedy="run again without --plant-slowdown",
        )
    folder = local_folder(session.chip.chip_class, data)
    return write_next(folder, [file_stem(session.stack)], [content], disk)[0]


def _flaws(document: _Document) -> Iterator[Flaw]:
    header, commit = document.machine_info.gemma3n_perf, document.commit_info.id
    if not header.session.strip():
        yield Flaw("the session has no id", "an id no other session has", f"{HEADER}.session")
    if _CLASS.fullmatch(header.chip.chip_class) is None:
        found = f"chip class {header.chip.chip_class!r} cannot name a folder"
        yield Flaw(found, "lower-case letters, digits, dots and dashes", f"{HEADER}.chip.chip_class")
    if header.planted < 0:
        yield Flaw(f"planted is {header.planted}", "a fraction, 0 where none", f"{HEADER}.planted")
    if commit not in (None, "unversioned", header.stack.commit):
        found = f"pytest-benchmark saw commit {commit}, the session was measured at {header.stack.commit}"
        yield Flaw(found, "one commit in one file", "$.commit_info.id")
    seen: dict[str, Measurement] = {}
    for index, benchmark in enumerate(document.benchmarks):
        measurement = benchmark.extra_info.gemma3n_perf
        if measurement is None:
            continue
        here, payload = f"$.benchmarks[{index}]", f"$.benchmarks[{index}].extra_info.{KEY}"
        if not benchmark.stats.data or not all(value > 0 for value in benchmark.stats.data):
            yield Flaw("raw samples are missing or not positive", "positive seconds", f"{here}.stats.data")
        for flaw in _measurement_flaws(measurement):
            yield replace(flaw, place=f"{payload}.{flaw.place}")
        if measurement.planted != header.planted:
            found = f"planted {measurement.planted:g} in a session that planted {header.planted:g}"
            yield Flaw(found, "one planted slowdown in one session", f"{payload}.planted")
        if seen.setdefault(measurement.workload, measurement) != measurement:
            found = f"a second, different measurement of {measurement.workload}"
            yield Flaw(found, "one measurement per workload in a session", payload)
    if not seen:
        yield Flaw("no workload was measured", "at least one measurement", "$.benchmarks")


def _measurement_flaws(one: Measurement) -> Iterator[Flaw]:
    """Yield what is wrong with a measurement, with places below it."""
    try:
        shape = Workload.parse(one.workload).shape
    except UsageError as error:
        yield Flaw(error.found, error.expected or "a workload id", "workload")
        return
    if one.prompt_tokens != shape.prompt:
        yield Flaw(f"{one.prompt_tokens} tokens", f"{shape.prompt}, as in {one.workload}", "prompt_tokens")
    if one.generated_tokens != shape.generate:
        yield Flaw(f"{one.generated_tokens} tokens", f"{shape.generate}, as in {one.workload}", "generated_tokens")
    if not one.runs:
        yield Flaw("no run counts", "at least one run", "runs")
    for index, run in enumerate(one.runs):
        yield from _run_flaws(run, f"runs[{index}]", one.generated_tokens)
    for index, value in enumerate(one.ttft_s):
        if not value > 0:
            yield Flaw(f"{value} s", "positive seconds", f"ttft_s[{index}]")
    for name in ("peak_memory_bytes", "kv_bytes", "streamed_bytes"):
        if getattr(one, name) < 0:
            yield Flaw(f"{getattr(one, name)} bytes", "a size, not negative", name)
    if one.copy_bandwidth is not None and not one.copy_bandwidth > 0:
        yield Flaw(f"{one.copy_bandwidth}", "positive bytes per second", "copy_bandwidth")


def _run_flaws(run: Run, place: str, tokens: int) -> Iterator[Flaw]:
    if not run.seconds >= 10**-_NS:
        yield Flaw(f"{run.seconds} s", "positive seconds", f"{place}.seconds")
    if run.tokens != tokens:
        yield Flaw(f"{run.tokens} tokens", f"{tokens}, as every run of this workload", f"{place}.tokens")
    if len(run.step_s) != run.tokens:
        yield Flaw(f"{len(run.step_s)} intervals", f"{run.tokens}, one a token", f"{place}.step_s")
    for index, value in enumerate(run.step_s):
        if value < 0:
            yield Flaw(f"{value} s", "seconds, not negative", f"{place}.step_s[{index}]")
    if run.faults:
        yield Flaw(", ".join(run.faults), "none: a run with faults is a discarded run", f"{place}.faults")


def _dumps(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


SESSIONS = Codec(
    _Document,
    SCHEMA,
    "a session file of this suite",
    "restore the file from version control, or move it away; it is left untouched",
    schema_at=("machine_info", KEY, "schema"),
    flaws=_flaws,
    foreign=frozenset({_Document, _Machine, _Commit, _Benchmark, _Extra, _Stats}),
)
