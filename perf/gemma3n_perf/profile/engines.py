"""Engines side by side: the same checkpoint, the same prompt, the same greedy tokens, in interleaved rounds.

Opinion: "cannot load" is a result that was measured, with the engine's own words, for this checkpoint. It is never
known beforehand: engines said to refuse Gemma3n were seen to run it, and faster.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.errors import InvalidError, PerfError
from gemma3n_perf.profile.rounds import Note, estimate, interleaved
from gemma3n_perf.profile.types import EngineResult, Engines

CANARY_PROMPT, CANARY_TOKENS = 4, 12
"""A short prompt for comparing tokens: MLX's CUDA build was seen to prefill a long one differently each time."""

MOST_SAID = 300


class Streamer(Protocol):
    """An engine that decodes greedily from token ids. Loading happens in ``load``."""

    @property
    def name(self) -> str:
        """What a page calls it."""

    @property
    def version(self) -> str | None:
        """Of its package, where it has one."""

    @property
    def note(self) -> str | None:
        """A remark beside its figure."""

    def load(self) -> None:
        """Load the checkpoint; raises whatever the engine raises."""

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens, each as soon as the engine gives it."""


class Reported(Protocol):
    """A program that times itself: no tokens, no clock of ours."""

    @property
    def name(self) -> str:
        """What a page calls it."""

    @property
    def version(self) -> str | None:
        """Of its package, where it has one."""

    @property
    def note(self) -> str | None:
        """A remark beside its figure."""

    def load(self) -> None:
        """Find the program; raises where it is not there."""

    def tpot_s(self, prompt_tokens: int, count: int) -> float:
        """Run it once and return the seconds per token that it reports."""


def clocked(tokens: Iterator[int], clock: Clock, count: int) -> tuple[float, list[int]]:
    """Read ``count`` tokens off; returns (t_last - t_first) / (count - 1) in seconds, and the tokens.

    Raises InvalidError where the engine stopped early.
    """
    found: list[int] = []
    first = last = 0.0
    for token in tokens:
        last = clock()
        first = first if found else last
        found.append(token)
        if len(found) == count:
            break
    if len(found) < max(count, 2):
        raise InvalidError(f"it stopped after {len(found)} of {count} tokens", expected="a fixed count, EOS ignored")
    return (last - first) / (count - 1), found


def measure(
    engines: Sequence[Streamer], programs: Sequence[Reported], ids: Sequence[int], *, tokens: int, clock: Clock,
    rounds: int, rng: random.Random, note: Note = lambda text: None, enough: Callable[[int], bool] = lambda done: False,
) -> Engines:  # fmt: skip
    """Time all engines that load; the first one is what the others are compared with.

    Whatever an engine raises, at load or half-way, is its result; the rest goes on. Raises what the first one raises.
    """
    failed: dict[str, str] = {}
    canary: dict[str, list[int]] = {}
    running: list[Streamer] = []
    for engine in engines:
        note(f"loading {engine.name}")
        try:
            engine.load()
            canary[engine.name] = clocked(engine.stream(ids[:CANARY_PROMPT], CANARY_TOKENS), clock, CANARY_TOKENS)[1]
            clocked(engine.stream(ids, tokens), clock, tokens)  # compiles and warms
        except Exception as error:
            if engine is engines[0]:
                raise
            failed[engine.name] = said(error)
        else:
            running.append(engine)

    def once(engine: Streamer) -> float | None:
        if engine.name in failed:
            return None
        try:
            return clocked(engine.stream(ids, tokens), clock, tokens)[0]
        except Exception as error:
            if engine is engines[0]:
                raise
            failed[engine.name] = said(error)
            return None

    found = interleaved(
        {engine.name: lambda engine=engine: once(engine) for engine in running},  # type: ignore[misc]
        rounds, rng=rng, note=note, enough=enough,
    )  # fmt: skip
    base = [value for value in found[engines[0].name] if value is not None]
    results = []
    for engine in engines:
        if engine.name in failed:
            results.append(EngineResult(engine.name, engine.version, error=failed[engine.name], note=engine.note))
            continue
        own = [value for value in found[engine.name] if value is not None]
        results.append(
            EngineResult(
                engine.name,
                engine.version,
                estimate(own),
                estimate([a / b for a, b in zip(base, own, strict=True)]),
                CANARY_TOKENS,
                _first_difference(canary[engines[0].name], canary[engine.name]),
                note=engine.note,
            )
        )
    results += [_reported(program, len(ids), tokens, rounds, note) for program in programs]
    return Engines(len(ids), tokens, tuple(results))


def said(error: BaseException) -> str:
    """Return an engine's own words on one line, with the type where it is not ours."""
    if isinstance(error, PerfError):
        return " ".join(error.found.split())[:MOST_SAID]
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:MOST_SAID] if words else type(error).__name__


def _reported(program: Reported, prompt_tokens: int, tokens: int, rounds: int, note: Note) -> EngineResult:
    try:
        program.load()
        values = []
        for done in range(rounds):
            note(f"{program.name}: run {done + 1} of {rounds}")
            values.append(program.tpot_s(prompt_tokens, tokens))
        return EngineResult(program.name, program.version, estimate(values), note=program.note)
    except Exception as error:
        return EngineResult(program.name, program.version, error=said(error), note=program.note)


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    return next((i + 1 for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), None)
