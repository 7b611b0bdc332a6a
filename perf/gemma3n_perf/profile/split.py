"""Who waits for whom: each stage of a token timed, then an experiment on the pipelined loop.

A stage's name does not say whose time it is. On Apple parts the dispatch itself waits for the device once ten command
buffers are under way, so a long dispatch may be a busy GPU. Hence a delay is planted on the host: if the time per token
grows by all of it, tokens wait for the host; if it does not grow, the host waits for the device.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gemma3n_perf.decode.decoder import Clock, Decoder
from gemma3n_perf.decode.device import Device
from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile.rounds import Rounds, estimate
from gemma3n_perf.profile.types import DEVICE_BOUND, HOST_BOUND, MIXED, Estimate, Loop, Split

PLANTED = 0.4
"""The planted delay, as a share of the time per token: large beside the noise, smaller than a clear bound's slack."""

_EDGE = 2
Times = dict[str, float]
"""Seconds per token by the names of ``types.Loop``."""


@dataclass(slots=True)
class SplitTimer:
    """Times the loops of one prepared decoder, ``tokens`` tokens each.

    ``logits`` builds one step's logits from a token, ``sample`` the next token from them; both unevaluated.
    """

    decoder: Decoder
    logits: Callable[[Any], Any]
    sample: Callable[[Any], Any]
    device: Device
    clock: Clock
    tokens: int
    _spent: Times = field(default_factory=lambda: defaultdict(float), init=False)

    def __post_init__(self) -> None:
        """Refuse more tokens than the workload's shape keeps clear of a growing KV cache."""
        most = self.decoder.workload.shape.generate - _EDGE
        if not 2 <= self.tokens <= most:
            raise UsageError(f"{self.tokens} tokens a round", expected=f"2 to {most} for {self.decoder.workload}")

    def synchronous(self) -> Times:
        """Build, dispatch and wait for each token before the next is built."""
        token, _ = self.decoder.bare_start()
        for index in range(self.tokens + 1):
            if index == 1:
                begin = self._restart()
            token = self._ahead(token, 0.0)
            self._read(token)
        return self._per_token(self.clock() - begin)

    def pipelined(self, delay_s: float = 0.0) -> Times:
        """Build and dispatch each next token before the last is read, as generation does; spin ``delay_s``."""
        token, _ = self.decoder.bare_start()
        ahead = self._ahead(token, delay_s)
        for index in range(self.tokens + 1):
            if index == 1:
                begin = self._restart()
            token, ahead = ahead, self._ahead(ahead, delay_s)
            self._read(token)
        seconds = self.clock() - begin
        self.device.wait(ahead)
        return self._per_token(seconds)

    def _restart(self) -> float:
        self._spent.clear()
        return self.clock()

    def _per_token(self, seconds: float) -> Times:
        return {stage: spent / self.tokens for stage, spent in {**self._spent, "tpot_s": seconds}.items()}

    def _ahead(self, token: Any, delay_s: float) -> Any:
        clock, spent = self.clock, self._spent
        start = clock()
        logits = self.logits(token)
        built = clock()
        chosen = self.sample(logits)
        sampled = clock()
        until = sampled + delay_s
        while delay_s and clock() < until:
            pass
        begin = clock() if delay_s else sampled
        self.device.dispatch(chosen)
        spent["build_s"] += built - start
        spent["sample_s"] += sampled - built
        spent["dispatch_s"] += clock() - begin
        return chosen

    def _read(self, token: Any) -> None:
        clock, spent = self.clock, self._spent
        start = clock()
        self.device.wait(token)
        done = clock()
        token.item()
        spent["wait_s"] += done - start
        spent["sample_s"] += clock() - done


def measure(timer: SplitTimer, rounds: Rounds) -> Split:
    """Take interleaved rounds of the three loops and conclude. The decoder must be prepared."""
    timer.synchronous()  # warms
    planted = PLANTED * timer.pipelined()["tpot_s"]
    loops: dict[str, Callable[[], Times]] = {
        "synchronous": timer.synchronous, "pipelined": timer.pipelined, "planted": partial(timer.pipelined, planted),
    }  # fmt: skip
    synchronous, pipelined, delayed = (
        {stage: np.array([one[stage] for one in taken]) for stage in taken[0]}
        for taken in rounds.interleave(loops).values()
    )
    exposed = estimate((delayed["tpot_s"] - pipelined["tpot_s"]) / planted)
    return Split(
        tokens=timer.tokens,
        synchronous=Loop(**{stage: estimate(values) for stage, values in synchronous.items()}),
        pipelined=Loop(**{stage: estimate(values) for stage, values in pipelined.items()}),
        hidden_s=estimate(synchronous["tpot_s"] - pipelined["tpot_s"]),
        planted_s=planted,
        exposed=exposed,
        host_s=estimate(pipelined["build_s"] + pipelined["sample_s"] + pipelined["dispatch_s"]),
        bound=bound(exposed),
    )


def bound(exposed: Estimate) -> str:
    """Conclude from the share of a host delay that shows: more than half of it, less than half, or neither shown."""
    if exposed.low > 0.5:
        return HOST_BOUND
    return DEVICE_BOUND if exposed.high < 0.5 else MIXED
