"""The pipeline split on an engine whose host and device take known times."""

import random
from typing import Any

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.profile import split
from gemma3n_perf.profile.rounds import Rounds
from gemma3n_perf.profile.types import DEVICE_BOUND, HOST_BOUND, MIXED, Estimate, Split
from tests.decode.fakes import FakeEngine, fake_decoder

TICK = 4e-6
"""What a look at the clock takes, so that spinning ends."""

NEAR = 1e-4


def timer(tokens: int = 8, dispatch_s: float = 0.0, **engine: Any) -> tuple[split.SplitTimer, FakeEngine]:
    """Return a timer over a fake decoder; each dispatch takes the host ``dispatch_s``. A token is its own logits."""
    session, made = fake_decoder(tick=TICK, **engine)
    device = made.device
    plain = device.dispatch

    def slow(token: Any) -> None:
        device.clock.passes(dispatch_s)
        plain(token)

    device.dispatch = slow  # type: ignore[method-assign]
    return split.SplitTimer(session, made.step, lambda logits: logits, device, device.clock, tokens), made


def measured(**options: Any) -> Split:
    """Measure six rounds."""
    return split.measure(timer(**options)[0], Rounds(6, random.Random(3)))


def test_a_busy_device_hides_the_host() -> None:
    """1 ms of building under 10 ms of computing: hidden once pipelined, and a delay does not show."""
    found = measured(host_s=0.001, step_s=0.010)
    assert found.bound == DEVICE_BOUND
    assert found.exposed.value == pytest.approx(0.0, abs=0.02)
    assert found.pipelined.tpot_s.value == pytest.approx(0.010, abs=NEAR)
    assert found.synchronous.tpot_s.value == pytest.approx(0.011, abs=NEAR)
    assert found.hidden_s.value == pytest.approx(0.001, abs=NEAR)
    assert found.pipelined.wait_s.value == pytest.approx(0.009, abs=NEAR)


def test_a_busy_host_is_the_critical_path() -> None:
    """9 ms of building and dispatching over 2 ms of computing: a delay shows in full."""
    found = measured(host_s=0.006, dispatch_s=0.003, step_s=0.002)
    assert found.bound == HOST_BOUND
    assert found.exposed.value == pytest.approx(1.0, abs=0.02)
    assert found.pipelined.tpot_s.value == pytest.approx(0.009, abs=NEAR)
    assert found.pipelined.build_s.value == pytest.approx(0.006, abs=NEAR)
    assert found.pipelined.dispatch_s.value == pytest.approx(0.003, abs=NEAR)
    assert found.host_s.value == pytest.approx(0.009, abs=NEAR)
    assert found.hidden_s.value == pytest.approx(0.002, abs=NEAR)


def test_a_long_dispatch_that_waits_for_the_device_is_not_the_hosts() -> None:
    """As on Apple parts, where dispatching blocks on the device: its name says host, the experiment says device."""
    session, made = fake_decoder(tick=TICK, host_s=0.001, step_s=0.010)
    device = made.device
    plain = device.dispatch

    def blocking(token: Any) -> None:
        device.clock.now = max(device.clock.now, device._free)
        plain(token)

    device.dispatch = blocking  # type: ignore[method-assign]
    timed = split.SplitTimer(session, made.step, lambda logits: logits, device, device.clock, 8)
    found = split.measure(timed, Rounds(6, random.Random(3)))
    assert found.pipelined.dispatch_s.value > 0.5 * found.pipelined.tpot_s.value
    assert found.bound == DEVICE_BOUND


def test_the_stages_add_up_to_the_time_per_token() -> None:
    """Nothing is timed twice and nothing is left out, but the planted delay."""
    found = measured(host_s=0.004, dispatch_s=0.001, step_s=0.003)
    for loop in (found.synchronous, found.pipelined):
        parts = (loop.build_s, loop.sample_s, loop.dispatch_s, loop.wait_s)
        assert sum(part.value for part in parts) == pytest.approx(loop.tpot_s.value, abs=NEAR)


def test_both_loops_leave_the_session_where_it_was() -> None:
    """The first and the last token of a loop are not counted, and every loop starts from the fixed position."""
    timed, made = timer(tokens=5, host_s=0.001, step_s=0.001)
    timed.synchronous()
    synchronous = made.steps
    timed.pipelined()
    assert (synchronous, made.steps - synchronous) == (6, 7)
    assert made.rewinds == 2


@pytest.mark.parametrize("tokens", [1, 63])
def test_tokens_stay_clear_of_a_growing_cache(tokens: int) -> None:
    """The workload's shape says how far decode may go."""
    with pytest.raises(UsageError, match=f"{tokens} tokens"):
        timer(tokens=tokens)


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.6, 1.1, HOST_BOUND), (-0.1, 0.4, DEVICE_BOUND), (0.3, 0.7, MIXED)]
)
def test_a_bound_is_named_only_where_the_interval_shows_it(low: float, high: float, said: str) -> None:
    """An interval across one half tells neither."""
    assert split.bound(Estimate((low + high) / 2, low, high, 8)) == said
