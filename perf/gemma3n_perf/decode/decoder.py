"""Timing decode the way generation runs: pipelined, greedy, batch 1, from one fixed position, for a fixed count.

Each run starts from a copy of the same KV cache, and the end-of-sequence token is ignored.
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from operator import methodcaller
from typing import Any, Protocol

from gemma3n_perf.decode.device import Device
from gemma3n_perf.decode.engine import Engine
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.decode.types import Run
from gemma3n_perf.errors import InvalidError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

CANARY_PROMPT, CANARY_STEPS = 4, 12
WAKE_STEPS = 4
"""Not timed, before a run that a GPU may have clocked down for."""

OWN_TEXT = -1
"""The text that goes on as the prompt does; others are numbered from 0."""

NOT_REPRODUCIBLE = "prefilling one prompt twice gave different first tokens"

Clock = Callable[[], float]


class Probe(Protocol):
    """Reads conditions around one run."""

    def start(self) -> bool | None:
        """Begin an interval; true where the GPU may have clocked down meanwhile."""

    def stop(self) -> Conditions:
        """End it and tell how it went."""


class Decoder:
    """One workload on one engine, prepared once and run as often as wanted.

    ``planted`` slows every run by that fraction (0.1 = 10 % longer), by spinning after its last token:
    a smoke detector's test button, recorded with the result.
    """

    def __init__(
        self, engine: Engine, workload: Workload, prompt: Prompt, *, clock: Clock, device: Device, planted: float = 0.0
    ) -> None:
        shape = workload.shape
        shaped = None if shape.is_plain else engine.shaped(shape, prompt)
        self._engine: Engine = shaped or engine
        self._read: Callable[[Any], int] = shaped.read if shaped else methodcaller("item")
        # An engine that starts steps by itself says how to wait for them, and all its runs end so.
        self._settle: Callable[[], None] = getattr(engine, "settle", device.synchronize)
        self._prompt = prompt
        self._clock = clock
        self.device = device
        self._planted = planted
        self._first: Any = None
        self._position: Any = None
        self._ahead: Any = None
        self._begin, self._end, self._kv_bytes = 0, 0, 0
        self._tokens: dict[int, list[int]] = {}
        self._text = OWN_TEXT
        self._canary: list[int] = []
        self._first_ids: set[int] = set()
        self.workload = workload

    def time_to_first_token(self, planted: float | None = None) -> float:
        """Prefill from an empty cache and read the first token. Seconds. ``planted`` as in ``run``."""
        planted = self._planted if planted is None else planted
        self._ahead = None
        begin = self._clock()
        token = self._engine.prefill(self._prompt)
        first = self._read(token)
        elapsed = self._clock() - begin
        self._first_ids.add(first)
        self._spin(begin, elapsed, planted)
        return self._clock() - begin if planted else elapsed

    def prepare(self, offset: int = 0) -> None:
        """Prefill, decode the warm tokens and ``offset`` more, and fix the position that every run starts from.

        Raises NonFiniteError where a logit is NaN or infinite.
        """
        self._canary = self._decode_alone()
        # An engine that embeds an image says how not to do so twice.
        token = getattr(self._engine, "refill", self._engine.prefill)(self._prompt)
        self._first_ids.add(self._read(token))
        for _ in range(WARM_TOKENS - 1 + offset):
            token = self._engine.step(token)
        self.device.wait(token)
        # The last warm step comes after the caches' first growth, which every run would else time.
        before = self._engine.snapshot()
        self._engine.check_finite(token)
        self._engine.rewind(before)
        self._first = self._engine.step(token)
        self.device.wait(self._first)
        self._position = self._engine.snapshot()

    def run(
        self,
        probe: Probe,
        steps: int | None = None,
        planted: float | None = None,
        *,
        built: bool = False,
        settled: bool = False,
        continued: bool = False,
        text: int = OWN_TEXT,
    ) -> tuple[Run, list[int]]:
        """Rewind, then time ``steps`` decode steps (the workload's count unless given). Returns run and tokens.
        ``planted`` stands in for the session's own.

        The clock starts with the position's token in hand and stops when the last of ``steps`` tokens is read:
        n steps over n intervals. ``built`` starts it with the first step built, and stops it with the step after the
        last built too, as in the midst of generation: n whole periods, however few, where dispatching takes as long
        as computing. ``settled`` stops it when all that was started has ended. ``continued`` goes on after a ``built``
        run instead of rewinding: its last step built is this one's first, so that nothing at all is done outside the
        clock. ``text`` numbers what is decoded after rewinding: it begins with that token of the prompt, or as the
        prompt goes on. Raises InvalidError where there is no such run.
        """
        count = self.workload.shape.generate if steps is None else steps
        planted = self._planted if planted is None else planted
        engine, device, clock, read = self._engine, self.device, self._clock, self._read
        stamps, tokens = list[float](), list[int]()
        ahead, self._ahead = self._ahead, None
        if continued and (ahead is None or not built):
            raise InvalidError("a run was to go on where none had been built", expected="a built run before it")
        self._begin = self._end if continued else 0
        if not continued:
            engine.rewind(self._position)
            self._text = text % len(self._starts) if text >= 0 and self.workload.shape.is_plain else OWN_TEXT
            ahead = engine.step(self._start()) if built else None
            if hasattr(engine, "settle"):
                engine.settle()
        if probe.start() and not built:
            self._wake()
        begin = clock()
        if not built:
            ahead = engine.step(self._start())
        device.dispatch(ahead)
        for i in range(count):
            token = ahead
            if i + 1 < count or built:
                ahead = engine.step(token)
            if i + 1 < count:
                device.dispatch(ahead)
            tokens.append(read(token))
            stamps.append(clock())
        if settled or hasattr(engine, "settle"):
            # What a step started by itself is part of the period it was started in.
            self._settle()
            stamps[-1] = clock()
        if planted:
            # A pause after each token would be swallowed: the device computes the next one meanwhile.
            elapsed = stamps[-1] - begin
            self._spin(begin, elapsed, planted)
            stretch = (clock() - begin) / elapsed
            stamps = [begin + stretch * (stamp - begin) for stamp in stamps]
        conditions = probe.stop()
        self._ahead = ahead if built else None
        self._end = self._begin + count
        self._kv_bytes = engine.kv_bytes()
        steps_s = tuple(b - a for a, b in zip([begin, *stamps], stamps, strict=False))
        return Run(stamps[-1] - begin, count, steps_s, conditions), tokens

    def whole_run(
        self, prompt: Prompt, steps: int, planted: float = 0.0, forced: Mapping[int, int] | None = None
    ) -> tuple[float, list[int]]:
        """Fill an empty KV cache with ``prompt``, then time ``steps`` steps without a break, all inside the clock.

        ``forced`` are steps, from 1, that take that token of the prompt instead of the one decoded before them: what
        guesses how a text goes on gains nothing then. Returns seconds and tokens. The logits of the last step are the
        engine's, computed inside the clock. Every run after it must prepare anew.
        """
        given = {step: int(prompt.ids[index % len(prompt.ids)]) for step, index in (forced or {}).items()}
        engine, device, clock, read = self._engine, self.device, self._clock, self._read
        self._ahead = None
        device.wait(engine.prefill(prompt))
        # The token after a prompt can be a near tie, so the run begins with one that is given.
        first = engine.token(int(prompt.ids[0]))
        if hasattr(engine, "settle"):  # it is a step ahead of what is asked for
            first = engine.step(first)
            device.wait(first)
        self._settle()
        tokens: list[int] = []
        begin = clock()
        ahead = engine.step(first)
        device.dispatch(ahead)
        for i in range(steps):
            token = ahead
            if i + 1 < steps:
                ahead = engine.step(engine.token(given[i + 1]) if i + 1 in given else token)
                device.dispatch(ahead)
            tokens.append(read(token))
        if hasattr(engine, "finish"):
            engine.finish()
        self._settle()
        self._spin(begin, clock() - begin, planted)
        return clock() - begin, tokens

    def same_tokens(self, tokens: Sequence[int]) -> None:
        """Greedy decode of one text must repeat itself. Takes the latest run's tokens; raises InvalidError."""
        begin, text = self._begin, self._tokens.setdefault(self._text, [])
        known = text[begin : begin + len(tokens)]
        if known != list(tokens)[: len(known)]:
            first = next(i for i, (a, b) in enumerate(zip(known, tokens, strict=False)) if a != b)
            raise InvalidError(
                f"{self.workload}: run and rerun from one position differ from step {begin + first + 1} on",
                expected="the same greedy tokens every time",
                remedy="look for a race in a kernel or a fusion; nothing measured here counts",
            )
        if begin + len(known) == len(text):
            text += tokens[len(known) :]

    def token_digest(self) -> str:
        """Names the greedy tokens that decode alone gives: equal between sessions wherever decode is the same."""
        return hashlib.sha256(repr(self._canary).encode()).hexdigest()[:16]

    def prefill_reproducible(self) -> bool:
        """Whether every prefill of the prompt so far ended in the same first token."""
        return len(self._first_ids) <= 1

    def prefill_fault(self) -> str:
        """Why the time of a prefill means nothing here; empty where it counts."""
        return self._engine.prefill_fault() or ("" if self.prefill_reproducible() else NOT_REPRODUCIBLE)

    def _decode_alone(self) -> list[int]:
        """Greedy tokens after the prompt's first few, fed one at a time into an empty cache.

        No prefill kernel takes part: MLX's CUDA build was seen to prefill one prompt differently each time.
        """
        ids = [int(i) for i in self._prompt.ids[:CANARY_PROMPT]]
        token = self._engine.begin(ids[0])
        for token_id in ids[1:]:
            self.device.wait(self._engine.step(token))
            token = self._engine.token(token_id)
        found = []
        for _ in range(min(CANARY_STEPS, self.workload.shape.generate)):
            token = self._engine.step(token)
            found.append(int(self._read(token)))
        return found

    @functools.cached_property
    def _starts(self) -> list[int]:
        """Tokens that a text may begin with: those that the prompt holds once, and so no image's."""
        return [one for one, number in Counter(map(int, self._prompt.ids)).items() if number == 1] or [1]

    def _start(self) -> Any:
        return self._first if self._text == OWN_TEXT else self._engine.token(self._starts[self._text])

    def _wake(self) -> None:
        token = self._first
        for _ in range(WAKE_STEPS):
            token = self._engine.step(token)
        self.device.wait(token)
        self._engine.rewind(self._position)

    def bare_start(self) -> tuple[Any, Any]:
        """Rewind, and hand out the position's token and the engine's KV cache, for a loop that is not ours."""
        self._ahead = None
        self._engine.rewind(self._position)
        return self._first, self._engine.cache

    def last_logits(self) -> tuple[Any, str]:
        """Logits of the latest step, float32 of shape (vocabulary,), and the type they were computed in."""
        found: tuple[Any, str] = self._engine.last_logits()
        return found

    def kv_bytes(self) -> int:
        """Bytes of the KV cache after the latest run."""
        return self._kv_bytes

    def _spin(self, begin: float, elapsed: float, planted: float) -> None:
        until = begin + elapsed * (1 + planted)
        while planted and self._clock() < until:
            pass
