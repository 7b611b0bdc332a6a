"""Who waits for whom: each stage of a token timed, then an experiment on the pipelined loop.

Opinion: a stage's name does not say whose time it is. On Apple parts the dispatch itself waits for the device once ten
command buffers are under way, so a long dispatch may be a busy GPU. Hence a delay is planted on the host: if the time
per token grows by all of it, tokens wait for the host; if it does not grow, the host waits for the device.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gemma3n_perf.decode.decoder import Clock, DecodeSession, Device
from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, Note, estimate, interleaved
from gemma3n_perf.profile.types import DEVICE_BOUND, HOST_BOUND, MIXED, Estimate, Loop, Split

PLANTED = 0.4
"""The planted delay, as a share of the time per token: large beside the noise, smaller than a clear bound's slack."""

_EDGE = 2


class Stages(Protocol):
    """An engine whose step can be taken in stages."""

    def logits(self, token: Any) -> Any:
        """Build one step's logits, unevaluated."""


Sample = Callable[[Any], Any]


@dataclass(slots=True)
class _Sums:
    build: float = 0.0
    sample: float = 0.0
    dispatch: float = 0.0
    wait: float = 0.0
    seconds: float = 0.0


@dataclass(slots=True)
class SplitTimer:
    """Times one prepared session's loops. ``sample`` makes the next token of logits, unevaluated."""

    session: DecodeSession
    engine: Stages
    device: Device
    clock: Clock
    sample: Sample
    tokens: int
    _sums: _Sums = field(default_factory=_Sums)

    def __post_init__(self) -> None:
        """Refuse more tokens than the workload's shape keeps clear of a growing KV cache."""
        most = self.session.workload.shape.generate - _EDGE
        if not 2 <= self.tokens <= most:
            raise UsageError(f"{self.tokens} tokens a round", expected=f"2 to {most} for {self.session.workload}")

    def synchronous(self) -> _Sums:
        """Build, dispatch and wait for each token before the next is built."""
        token, _ = self.session.bare_start()
        self._sums = _Sums()
        for index in range(self.tokens + 1):
            if index == 1:
                begin, self._sums = self.clock(), _Sums()
            token = self._ahead(token, 0.0)
            self._read(token)
        self._sums.seconds = self.clock() - begin
        return self._sums

    def pipelined(self, delay_s: float = 0.0) -> _Sums:
        """Build and dispatch each next token before the last is read, as generation does; spin ``delay_s``."""
        token, _ = self.session.bare_start()
        self._sums = _Sums()
        ahead = self._ahead(token, delay_s)
        for index in range(self.tokens + 1):
            if index == 1:
                begin, self._sums = self.clock(), _Sums()
            token, ahead = ahead, self._ahead(ahead, delay_s)
            self._read(token)
        self._sums.seconds = self.clock() - begin
        self.device.wait(ahead)
        return self._sums

    def _ahead(self, token: Any, delay_s: float) -> Any:
        clock, sums = self.clock, self._sums
        start = clock()
        logits = self.engine.logits(token)
        built = clock()
        chosen = self.sample(logits)
        sampled = clock()
        until = sampled + delay_s
        while delay_s and clock() < until:
            pass
        begin = clock() if delay_s else sampled
        self.device.dispatch(chosen)
        sums.build += built - start
        sums.sample += sampled - built
        sums.dispatch += clock() - begin
        return chosen

    def _read(self, token: Any) -> None:
        clock, sums = self.clock, self._sums
        start = clock()
        self.device.wait(token)
        done = clock()
        token.item()
        sums.wait += done - start
        sums.sample += clock() - done


def measure(
    timer: SplitTimer, *, rounds: int, rng: random.Random, note: Note = lambda text: None,
    enough: Callable[[int], bool] = lambda done: False,
) -> Split:  # fmt: skip
    """Take ``rounds`` interleaved rounds of the three loops and conclude. The session must be prepared."""
    timer.synchronous()
    planted = PLANTED * timer.pipelined().seconds / timer.tokens
    found = interleaved(
        {
            "synchronous": timer.synchronous,
            "pipelined": timer.pipelined,
            "planted": lambda: timer.pipelined(planted),
        },
        rounds, rng=rng, note=note, enough=enough,
    )  # fmt: skip
    n = timer.tokens
    sync, piped, delayed = (
        [one.seconds / n for one in found[name]] for name in ("synchronous", "pipelined", "planted")
    )
    exposed = estimate([(b - a) / planted for a, b in zip(piped, delayed, strict=True)])
    return Split(
        tokens=n,
        synchronous=_loop(found["synchronous"], n),
        pipelined=_loop(found["pipelined"], n),
        hidden_s=estimate([a - b for a, b in zip(sync, piped, strict=True)]),
        planted_s=planted,
        exposed=exposed,
        host_s=estimate([(one.build + one.sample + one.dispatch) / n for one in found["pipelined"]]),
        bound=bound(exposed),
    )


def bound(exposed: Estimate) -> str:
    """Conclude from the share of a host delay that shows: more than half of it, less than half, or neither shown."""
    if exposed.low > 0.5:
        return HOST_BOUND
    if exposed.high < 0.5:
        return DEVICE_BOUND
    return MIXED


def _loop(sums: list[_Sums], tokens: int) -> Loop:
    def of(stage: Callable[[_Sums], float]) -> Estimate:
        return estimate([stage(one) / tokens for one in sums])

    assert len(sums) >= LEAST_ROUNDS
    return Loop(
        build_s=of(lambda one: one.build),
        sample_s=of(lambda one: one.sample),
        dispatch_s=of(lambda one: one.dispatch),
        wait_s=of(lambda one: one.wait),
        tpot_s=of(lambda one: one.seconds),
    )
