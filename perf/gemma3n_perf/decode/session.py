"""Timing decode the way generation runs: pipelined, greedy, batch 1, from one fixed position, for a fixed count.

Opinion: a number that another position, an early stop or a cold kernel could have changed is not a
measurement. Each run starts from a copy of the same KV cache, and the end-of-sequence token is ignored.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.decode.types import Run
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

Clock = Callable[[], float]


class Engine(Protocol):
    """What a decode session needs of an engine. Tokens are opaque; ``item()`` reads one and waits for it."""

    name: str

    def prefill(self, prompt: Prompt) -> Any: ...
    def step(self, token: Any) -> Any: ...
    def snapshot(self) -> Any: ...
    def rewind(self, snapshot: Any) -> None: ...
    def kv_bytes(self) -> int: ...
    def check_finite(self, token: Any) -> None: ...


class Probe(Protocol):
    """Reads conditions around one run."""

    def start(self) -> None: ...
    def stop(self) -> Conditions: ...


class Device(Protocol):
    """The few things a session asks of MLX itself, so that tests need no device."""

    def dispatch(self, token: Any) -> None: ...
    def wait(self, token: Any) -> None: ...
    def reset_peak_memory(self) -> None: ...
    def peak_memory(self) -> int: ...


class MlxDevice:
    """MLX's default device."""

    def dispatch(self, token: Any) -> None:
        """Start computing ``token`` without waiting for it."""
        import mlx.core as mx

        mx.async_eval(token)

    def wait(self, token: Any) -> None:
        """Wait until ``token`` is computed."""
        import mlx.core as mx

        mx.eval(token)

    def reset_peak_memory(self) -> None:
        """Start a new peak from what is in use now."""
        import mlx.core as mx

        mx.reset_peak_memory()

    def peak_memory(self) -> int:
        """Bytes at the peak since the last reset."""
        import mlx.core as mx

        return int(mx.get_peak_memory())


class DecodeSession:
    """One workload on one engine, prepared once and run as often as wanted.

    ``planted`` slows every step by that fraction (0.1 = 10 % longer), by spinning after the token is read:
    a smoke detector's test button, recorded with the result.
    """

    def __init__(
        self, engine: Engine, workload: Workload, prompt: Prompt, *, clock: Clock, device: Device, planted: float = 0.0
    ) -> None:
        self._engine = engine
        self._prompt = prompt
        self._clock = clock
        self._device = device
        self._planted = planted
        self._first: Any = None
        self._position: Any = None
        self._tokens: list[int] | None = None
        self.workload = workload

    def time_to_first_token(self) -> float:
        """Prefill from an empty cache and read the first token. Seconds."""
        begin = self._clock()
        token = self._engine.prefill(self._prompt)
        token.item()
        elapsed = self._clock() - begin
        self._spin(begin, elapsed)
        return self._clock() - begin if self._planted else elapsed

    def prepare(self) -> None:
        """Prefill, decode the warm tokens and fix the position that every run starts from.

        Raises NonFiniteError where a logit is NaN or infinite.
        """
        token = self._engine.prefill(self._prompt)
        for _ in range(WARM_TOKENS - 1):
            token = self._engine.step(token)
        self._device.wait(token)
        # The last warm step comes after the caches' first growth, which every run would else time.
        before = self._engine.snapshot()
        self._engine.check_finite(token)
        self._engine.rewind(before)
        self._first = self._engine.step(token)
        self._device.wait(self._first)
        self._position = self._engine.snapshot()

    def run(self, probe: Probe, steps: int | None = None) -> tuple[Run, list[int]]:
        """Rewind, then time ``steps`` decode steps (the workload's count unless given). Returns run and tokens.

        The clock starts with the position's token in hand and stops when the last of ``steps`` tokens is read:
        n steps over n intervals.
        """
        count = self.workload.shape.generate if steps is None else steps
        engine, device, clock = self._engine, self._device, self._clock
        engine.rewind(self._position)
        stamps: list[float] = []
        tokens: list[int] = []
        probe.start()
        begin = clock()
        ahead = engine.step(self._first)
        device.dispatch(ahead)
        last = begin
        for i in range(count):
            token = ahead
            if i + 1 < count:
                ahead = engine.step(token)
                device.dispatch(ahead)
            tokens.append(token.item())
            if self._planted:
                self._spin(last, clock() - last)
            last = clock()
            stamps.append(last)
        conditions = probe.stop()
        steps_s = tuple(b - a for a, b in zip([begin, *stamps], stamps, strict=False))
        return Run(stamps[-1] - begin, count, steps_s, conditions), tokens

    def same_tokens(self, tokens: Sequence[int]) -> None:
        """Greedy decode from one position must repeat itself. Raises InvalidError where it does not."""
        if self._tokens is None:
            self._tokens = list(tokens)
        if self._tokens[: len(tokens)] != list(tokens)[: len(self._tokens)]:
            first = next(i for i, (a, b) in enumerate(zip(self._tokens, tokens, strict=False)) if a != b)
            raise InvalidError(
                f"{self.workload}: run and rerun from one position differ from step {first + 1} on",
                expected="the same greedy tokens every time",
                remedy="look for a race in a kernel or a fusion; nothing measured here counts",
            )

    def token_digest(self) -> str:
        """Names the greedy tokens that this session decodes."""
        return hashlib.sha256(repr(self._tokens).encode()).hexdigest()[:16]

    def kv_bytes(self) -> int:
        """Bytes of the KV cache after the latest run."""
        return self._engine.kv_bytes()

    def _spin(self, begin: float, elapsed: float) -> None:
        until = begin + elapsed * (1 + self._planted)
        while self._planted and self._clock() < until:
            pass
