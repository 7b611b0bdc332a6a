"""Engines side by side: what fails costs itself, and tokens are compared."""

import itertools
import random
from collections.abc import Iterator, Sequence

import pytest

from gemma3n_perf.errors import ArmUnavailableError, InvalidError
from gemma3n_perf.profile import engines
from gemma3n_perf.profile.engines import clocked, message
from gemma3n_perf.profile.rounds import Rounds
from gemma3n_perf.profile.types import EngineResult
from tests.decode.fakes import FakeClock


class Fake:
    """Yields one token every ``tpot`` seconds of a fake clock; ``token_at`` tells which."""

    version: str | None = "1.0"
    note: str | None = None

    def __init__(self, name: str, clock: FakeClock, tpot: float, *, odd_from: int = 99, breaks_at: int = 10**6) -> None:
        self.name = name
        self.refuses: Exception | None = None
        self.requests: list[tuple[int, int]] = []
        self._clock, self._tpot, self._odd_from, self._left = clock, tpot, odd_from, breaks_at

    def load(self) -> None:
        """Load, or refuse."""
        if self.refuses is not None:
            raise self.refuses

    def stream(self, ids: Sequence[int], count: int) -> Iterator[int]:
        """Prefill for a second, then decode."""
        self.requests.append((len(ids), count))
        self._clock.passes(1.0)
        for index in range(count):
            self._clock.passes(self._tpot)
            self._left -= 1
            if self._left < 0:
                raise RuntimeError("[metal::malloc] out of\nroom")
            yield index + (1000 if index >= self._odd_from else 0)


class Program:
    """Times itself."""

    name = "program"
    version: str | None = None
    note: str | None = "its own clock"

    def __init__(self, values: Sequence[float] | None) -> None:
        self._values = itertools.cycle(values) if values else None

    def load(self) -> None:
        """Be there, or not."""
        if self._values is None:
            raise ArmUnavailableError("program is not on the PATH")

    def tpot_s(self, prompt_tokens: int, count: int) -> float:
        """Return the next value."""
        assert self._values is not None
        return next(self._values)


def measured(clock: FakeClock, *fakes: Fake, programs: Sequence[Program] = ()) -> dict[str, EngineResult]:
    """Measure six rounds of eight tokens after a prompt of twenty."""
    rounds = Rounds(6, random.Random(1))
    found = engines.measure(fakes, programs, list(range(20)), rounds, tokens=8, clock=clock)
    assert (found.prompt_tokens, found.tokens) == (20, 8)
    return {one.engine: one for one in found.results}


def test_prefill_is_left_out_and_n_tokens_have_n_minus_1_intervals() -> None:
    """The mistake of the engines' own figures: n+1 tokens over n intervals, or prefill among them."""
    clock = FakeClock()
    seconds, tokens = clocked(Fake("a", clock, 0.01).stream([1, 2], 5), clock, 5)
    assert seconds == pytest.approx(0.01)
    assert tokens == [0, 1, 2, 3, 4]


def test_an_engine_that_stops_early_is_not_timed() -> None:
    """A run that ended at EOS was seen to read 117 % too fast."""
    with pytest.raises(InvalidError, match="stopped after 3 of 5"):
        clocked(iter([1, 2, 3]), FakeClock(tick=0.01), 5)


def test_engines_are_compared_with_the_first_one_round_by_round() -> None:
    """A ratio of throughputs: half the time per token is twice the throughput."""
    clock = FakeClock()
    found = measured(clock, Fake("loop", clock, 0.010), Fake("fast", clock, 0.005))
    assert found["fast"].tpot_s is not None
    assert found["fast"].tpot_s.value == pytest.approx(0.005)
    assert found["fast"].ratio is not None
    assert found["fast"].ratio.value == pytest.approx(2.0)
    assert (found["fast"].compared_tokens, found["fast"].first_difference) == (engines.CANARY_TOKENS, None)


def test_other_tokens_are_said_with_their_place() -> None:
    """Tokens are compared on a short prompt, whose prefill every device repeats."""
    clock = FakeClock()
    odd = Fake("odd", clock, 0.01, odd_from=4)
    found = measured(clock, Fake("loop", clock, 0.01), odd)
    assert found["odd"].first_difference == 5
    assert odd.requests[0] == (engines.CANARY_PROMPT, engines.CANARY_TOKENS)


def test_what_cannot_load_is_a_result_with_its_own_words() -> None:
    """It says why on one line, and the others are measured."""
    clock = FakeClock()
    broken = Fake("broken", clock, 0.01)
    broken.refuses = KeyError("model")
    found = measured(clock, Fake("loop", clock, 0.01), broken, programs=[Program(None)])
    assert found["broken"].error == "KeyError: 'model'"
    assert found["broken"].tpot_s is None
    assert found["program"].error == "program is not on the PATH"
    assert found["loop"].error is None


def test_what_fails_half_way_is_a_result_too() -> None:
    """After some rounds there is no half of a figure: its words stand alone."""
    clock = FakeClock()
    found = measured(clock, Fake("loop", clock, 0.01), Fake("dies", clock, 0.01, breaks_at=12 + 8 + 20))
    assert found["dies"].error == "RuntimeError: [metal::malloc] out of room"
    assert found["dies"].tpot_s is None
    assert found["loop"].tpot_s is not None


def test_without_the_model_loop_there_is_nothing_to_compare_with() -> None:
    """The first engine's failure is the part's."""
    clock = FakeClock()
    broken = Fake("loop", clock, 0.01)
    broken.refuses = RuntimeError("no")
    with pytest.raises(RuntimeError, match="no"):
        measured(clock, broken)


def test_a_program_that_times_itself_has_no_tokens_and_no_pair() -> None:
    """Its figure stands beside the others without a ratio."""
    clock = FakeClock()
    found = measured(clock, Fake("loop", clock, 0.01), programs=[Program([0.02, 0.03])])["program"]
    assert found.tpot_s is not None
    assert found.tpot_s.value == pytest.approx(0.025)
    assert (found.ratio, found.compared_tokens, found.note) == (None, 0, "its own clock")


def test_long_words_are_cut() -> None:
    """A missing-parameter message lists hundreds of names."""
    assert len(message(ValueError("x" * 5_000))) == engines.LONGEST_MESSAGE
    assert message(ValueError()) == "ValueError"
