"""What makes a measurement and a set of sessions believable. Pure: no file is read here."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from gemma3n_perf.decode.types import Measurement, Run
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.store.types import Session
from gemma3n_perf.workload.workload import Workload


@dataclass(frozen=True, slots=True)
class Flaw:
    """One fault: where it is (a JSON path below the thing checked), what it is, and what was expected."""

    path: str
    found: str
    expected: str


def check_measurement(measurement: Measurement) -> Flaw | None:
    """Return the first fault of a measurement, or None if every number in it can be believed."""
    return next(_measurement_flaws(measurement), None)


def _measurement_flaws(one: Measurement) -> Iterator[Flaw]:
    try:
        shape = Workload.parse(one.workload).shape
    except UsageError as error:
        yield Flaw("workload", error.found, error.expected or "a workload id")
        return
    if one.prompt_tokens != shape.prompt:
        yield Flaw("prompt_tokens", f"{one.prompt_tokens} tokens", f"{shape.prompt}, as in {one.workload}")
    if one.generated_tokens != shape.generate:
        yield Flaw("generated_tokens", f"{one.generated_tokens} tokens", f"{shape.generate}, as in {one.workload}")
    if not one.runs:
        yield Flaw("runs", "no run counts", "at least one run")
    for index, run in enumerate(one.runs):
        yield from _run_flaws(run, f"runs[{index}]", one.generated_tokens)
        if run.faults:
            yield Flaw(f"runs[{index}].faults", ", ".join(run.faults), "none: a run with faults is a discarded run")
    for index, value in enumerate(one.ttft_s):
        if not _positive(value):
            yield Flaw(f"ttft_s[{index}]", f"{value} s", "positive seconds")
    for name in ("peak_memory_bytes", "kv_bytes", "streamed_bytes"):
        if getattr(one, name) < 0:
            yield Flaw(name, f"{getattr(one, name)} bytes", "a size, not negative")
    if not (math.isfinite(one.planted) and one.planted >= 0):
        yield Flaw("planted", f"{one.planted}", "a fraction, 0 where none")
    if one.copy_bandwidth is not None and not _positive(one.copy_bandwidth):
        yield Flaw("copy_bandwidth", f"{one.copy_bandwidth}", "positive bytes per second")


def _run_flaws(run: Run, path: str, tokens: int) -> Iterator[Flaw]:
    if not _positive(run.seconds):
        yield Flaw(f"{path}.seconds", f"{run.seconds} s", "positive seconds")
    if run.tokens != tokens:
        yield Flaw(f"{path}.tokens", f"{run.tokens} tokens", f"{tokens}, as every run of this workload")
    if len(run.step_s) != run.tokens:
        yield Flaw(f"{path}.step_s", f"{len(run.step_s)} intervals", f"{run.tokens}, one a token")
    for index, value in enumerate(run.step_s):
        if not (math.isfinite(value) and value >= 0):
            yield Flaw(f"{path}.step_s[{index}]", f"{value} s", "seconds, not negative")


def _positive(value: float) -> bool:
    return math.isfinite(value) and value > 0


def stack_difference(left: Stack, right: Stack) -> str | None:
    """Return the first field in which two stacks differ, as ``name: a, b``, or None where they are one stack."""
    for field in fields(Stack):
        ours, theirs = getattr(left, field.name), getattr(right, field.name)
        if ours != theirs:
            return f"{field.name}: {_brief(ours, theirs)}, {_brief(theirs, ours)}"
    return None


def _brief(value: object, other: object) -> str:
    if isinstance(value, dict) and isinstance(other, dict):
        shown = {name: text for name, text in value.items() if other.get(name) != text}
        return " ".join(f"{name}={text}" for name, text in sorted(shown.items())) or "none"
    return str(value)


def unfit(session: Session) -> Flaw | None:
    """Return why one session can never be part of a committed baseline, or None."""
    if session.planted or any(one.planted for one in session.measurements):
        return Flaw("planted", f"a slowdown of {session.planted:.0%} was planted", "a session with nothing planted")
    if session.stack.commit is None:
        return Flaw("stack.commit", "the commit is unknown", "a session measured in a git checkout")
    if session.stack.dirty is not False:
        return Flaw("stack.dirty", "uncommitted changes, or none known", "a session measured on a clean commit")
    return None


def disagreement(sessions: Sequence[Session]) -> Flaw | None:
    """Return the first thing that sessions of one baseline must share and do not, or None."""
    return next(_disagreements(sessions), None)


def _disagreements(sessions: Sequence[Session]) -> Iterator[Flaw]:
    first = sessions[0]
    seen: set[str] = set()
    known: dict[str, Measurement] = {}
    for session in sessions:
        difference = stack_difference(first.stack, session.stack)
        if difference is not None:
            yield Flaw("stack", f"sessions {first.id} and {session.id} differ in {difference}", "one commit and stack")
        for name in ("chip_class", "name", "gpu_cores", "cpu_cores"):
            ours, theirs = getattr(first.chip, name), getattr(session.chip, name)
            if ours != theirs:
                found = f"sessions {first.id} and {session.id} differ in {name}: {ours}, {theirs}"
                yield Flaw("chip", found, "one chip")
        if session.id in seen:
            yield Flaw("session", f"session {session.id} is there twice", "every session once")
        seen.add(session.id)
        for one in session.measurements:
            reference = known.setdefault(one.workload, one)
            for name in ("engine", "checkpoint_digest", "token_digest", "streamed_bytes", "soft_tokens"):
                ours, theirs = getattr(reference, name), getattr(one, name)
                if ours != theirs:
                    found = f"{one.workload} differs in {name} at session {session.id}: {ours}, {theirs}"
                    yield Flaw(name, found, "the same bytes, tokens and engine in every session")
