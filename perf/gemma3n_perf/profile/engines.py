"""Engines side by side: the same checkpoint, the same prompt, the same greedy tokens, in interleaved rounds.

"Cannot load" is a result that was measured, with the engine's own message, for this checkpoint. It is never known
beforehand: engines said to refuse Gemma3n were seen to run it, and faster.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from math import nan
from typing import Protocol, TypeVar

import numpy as np

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.errors import InvalidError, PerfError
from gemma3n_perf.profile.rounds import Rounds, estimate
from gemma3n_perf.profile.types import EngineResult, Engines

CANARY_PROMPT, CANARY_TOKENS = 4, 12
"""A short prompt for comparing tokens: MLX's CUDA build was seen to prefill a long one differently each time."""

LONGEST_MESSAGE = 300
_T = TypeVar("_T")


class Engine(Protocol):
    """An engine: what a page calls it, the version of its package, and a remark beside its figure."""

    name: str
    version: str | None
    note: str | None

    def load(self) -> None:
        """Load the checkpoint or find the program; raises whatever the engine raises."""


class Streamer(Engine, Protocol):
    """An engine that decodes greedily from token ids."""

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill ``ids`` and yield ``count`` greedy tokens, each as soon as the engine gives it."""


class SelfTimed(Engine, Protocol):
    """A program that times itself: no tokens, no clock of ours."""

    def tpot_s(self, prompt_tokens: int, count: int) -> float:
        """Run it once and return the seconds per token that it reports."""


def clocked(tokens: Iterator[int], clock: Clock, count: int) -> tuple[float, list[int]]:
    """Read ``count`` tokens off; returns (t_last - t_first) / (count - 1) in seconds, and the tokens.

    Raises InvalidError where the engine stopped early.
    """
    found, marks = list[int](), list[float]()
    for token in islice(tokens, count):
        marks.append(clock())
        found.append(token)
    if len(found) < max(count, 2):
        raise InvalidError(f"it stopped after {len(found)} of {count} tokens", expected="a fixed count, EOS ignored")
    return (marks[-1] - marks[0]) / (count - 1), found


def measure(
    engines: Sequence[Streamer], programs: Sequence[SelfTimed], ids: Sequence[int], rounds: Rounds,
    *, tokens: int, clock: Clock,
) -> Engines:  # fmt: skip
    """Time all engines that load; the first one is what the others are compared with.

    Whatever an engine raises, at load or half-way, is its result; the others go on. Raises what the first one raises.
    """
    failed: dict[str, str] = {}

    def attempt(engine: Engine, action: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return otherwise if engine.name in failed else action()
        except Exception as error:
            if engine is engines[0]:
                raise
            failed[engine.name] = message(error)
            return otherwise

    def load(engine: Streamer) -> list[int]:
        rounds.note(f"loading {engine.name}")
        engine.load()
        first = clocked(engine.stream(ids[:CANARY_PROMPT], CANARY_TOKENS), clock, CANARY_TOKENS)[1]
        decode(engine)  # compiles and warms
        return first

    def decode(engine: Streamer) -> float:
        return clocked(engine.stream(ids, tokens), clock, tokens)[0]

    def run(program: SelfTimed) -> list[float]:
        program.load()
        values = []
        for done in range(rounds.most):
            rounds.note(f"{program.name}: run {done + 1} of {rounds.most}")
            values.append(program.tpot_s(len(ids), tokens))
        return values

    canaries = {one.name: attempt(one, partial(load, one), list[int]()) for one in engines}
    found = rounds.interleave({one.name: partial(attempt, one, partial(decode, one), nan) for one in engines})
    found |= {one.name: attempt(one, partial(run, one), list[float]()) for one in programs}
    first, results = engines[0].name, []
    for one in (*engines, *programs):
        result = EngineResult(one.name, one.version, error=failed.get(one.name), note=one.note)
        if result.error is None:
            result = replace(result, tpot_s=estimate(found[one.name]))
        if result.error is None and one.name in canaries:
            pairs = enumerate(zip(canaries[first], canaries[one.name], strict=True), start=1)
            result = replace(
                result,
                ratio=estimate(np.divide(found[first], found[one.name])),
                compared_tokens=CANARY_TOKENS,
                first_difference=next((place for place, (a, b) in pairs if a != b), None),
            )
        results.append(result)
    return Engines(len(ids), tokens, tuple(results))


def message(error: BaseException) -> str:
    """Return an engine's own message on one line, with the type where it is not ours."""
    if isinstance(error, PerfError):
        return " ".join(error.found.split())[:LONGEST_MESSAGE]
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:LONGEST_MESSAGE] if text else type(error).__name__
