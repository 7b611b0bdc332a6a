from typing import Any

import numpy as np
import pytest

from gemma3n_perf.decode.decoder import WAKE_STEPS
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.prompt import Prompt
from gemma3n_perf.errors import InvalidError, NonFiniteError
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.workload.workload import WARM_TOKENS
from tests.decode.fakes import FakeEngine, FakeProbe, Log, RunningAhead, fake_decoder, several

START = 40 + WARM_TOKENS


def only(log: Log, kind: str) -> list[int]:
    """Return the positions of one kind of call, in order."""
    return [position for name, position in log if name == kind]


def test_n_steps_take_n_intervals() -> None:
    """64 steps of 10 ms behind one host step of 1 ms: not 63 intervals, not 65, and no host time in between."""
    session, engine = fake_decoder(host_s=0.001, step_s=0.010)
    run, tokens = session.run(FakeProbe())
    assert run.seconds == pytest.approx(0.001 + 64 * 0.010, abs=1e-9)
    assert run.tokens == len(tokens) == len(run.step_s) == engine.steps == 64
    assert sum(run.step_s) == pytest.approx(run.seconds)
    assert run.step_s[1:] == pytest.approx([0.010] * 63)
    assert run.tpot_s == pytest.approx(run.seconds / 64)


@pytest.mark.parametrize("kind", [FakeEngine, RunningAhead])
@pytest.mark.parametrize("steps", [2, 64])
def test_an_engine_that_runs_ahead_takes_as_many_periods(kind: type[FakeEngine], steps: int) -> None:
    """Its n steps take n builds and n computations, too: none before the clock starts, none after it stops."""
    session, _ = fake_decoder(kind=kind, host_s=0.001, step_s=0.010)
    assert session.run(FakeProbe(), steps=steps)[0].seconds == pytest.approx(0.001 + steps * 0.010, abs=1e-9)
    for goes_on in (False, True, True):
        built = session.run(FakeProbe(), steps=steps, built=True, settled=True, continued=goes_on)[0]
        assert built.seconds == pytest.approx(steps * 0.010, abs=0.002)
    whole, tokens = session.whole_run(Prompt(np.arange(40, dtype=np.int32)), steps)
    assert whole == pytest.approx(0.001 + steps * 0.010, abs=1e-9)
    assert len(set(tokens)) == steps


def test_a_given_number_of_steps_is_taken() -> None:
    """A block of five is five steps, five reads and five intervals."""
    session, engine = fake_decoder()
    run, tokens = session.run(FakeProbe(), steps=5)
    assert run.tokens == len(tokens) == len(run.step_s) == engine.steps == 5
    assert run.seconds == pytest.approx(0.001 + 5 * 0.010, abs=1e-9)


def test_the_next_step_is_dispatched_before_a_token_is_read() -> None:
    """Pipelined, and never more than one step ahead; the last token is read with nothing behind it."""
    session, engine = fake_decoder()
    session.run(FakeProbe(), steps=6)
    log = engine.device.log
    for position in range(START + 1, START + 6):
        assert log.index(("dispatch", position + 1)) < log.index(("read", position))
    for position in range(START + 1, START + 5):
        assert log.index(("read", position)) < log.index(("dispatch", position + 2))
    assert only(log, "dispatch") == only(log, "read") == list(range(START + 1, START + 7))


@pytest.mark.parametrize(("steps", "period_s"), [(1, 0.010), (6, 0.010), (1, 0.025)])
def test_a_built_block_holds_whole_periods(steps: int, period_s: float) -> None:
    """Its first step is built before the clock starts and another after its last: building hides behind computing where
    that takes longer, in a block of one step as in a long one, and takes its own time where it does not."""
    host_s = 0.025 if period_s == 0.025 else 0.001
    session, engine = fake_decoder(host_s=host_s, step_s=0.010)
    run, tokens = session.run(FakeProbe(), steps=steps, built=True)
    assert run.seconds == pytest.approx(steps * period_s, abs=1e-9)
    assert run.tokens == len(tokens) == len(run.step_s) == steps
    log = engine.device.log
    assert only(log, "step") == list(range(START, START + steps + 1))
    assert only(log, "dispatch") == only(log, "read") == list(range(START + 1, START + steps + 1))
    assert session.run(FakeProbe(), steps=steps)[1] == tokens


def test_a_built_run_can_go_on_where_the_one_before_ended() -> None:
    """Nothing is rewound and nothing built outside the clock, and the tokens are those of one long run."""
    session, engine = fake_decoder(host_s=0.001, step_s=0.010)
    whole = session.run(FakeProbe(), steps=6, built=True)[1]
    session.same_tokens(whole)
    engine.device.log.clear()
    blocks = [session.run(FakeProbe(), steps=2, built=True, continued=number > 0) for number in range(3)]
    assert [token for _, tokens in blocks for token in tokens] == whole
    assert all(run.seconds == pytest.approx(2 * 0.010, abs=1e-9) for run, _ in blocks)
    assert only(engine.device.log, "rewind") == [START]
    assert only(engine.device.log, "step") == list(range(START, START + 7))
    session.same_tokens(blocks[-1][1])
    with pytest.raises(InvalidError, match="differ from step 6 on"):
        session.same_tokens([blocks[-1][1][0], -1])


@pytest.mark.parametrize("between", ["nothing", "a prefill", "a run that was not built"])
def test_a_run_cannot_go_on_from_anything_else(between: str) -> None:
    """There is no step built for it."""
    session, _ = fake_decoder()
    if between != "nothing":
        session.run(FakeProbe(), steps=2, built=True)
    if between == "a prefill":
        session.time_to_first_token()
    elif between != "nothing":
        session.run(FakeProbe(), steps=2)
    with pytest.raises(InvalidError, match="go on"):
        session.run(FakeProbe(), steps=2, built=True, continued=True)


def test_a_gpu_that_clocked_down_is_woken_before_the_clock_starts() -> None:
    """By a few steps from the same position, rewound; time and tokens are those of a run without. Built runs, as on a
    CPU, go on unchanged."""
    session, engine = fake_decoder(host_s=0.001, step_s=0.010)
    expected = session.run(FakeProbe(), steps=3)
    engine.device.log.clear()
    run, tokens = session.run(FakeProbe(idle=True), steps=3)
    assert run.seconds == pytest.approx(expected[0].seconds)
    assert tokens == expected[1]
    woken = [("rewind", START), *(("step", START + number) for number in range(WAKE_STEPS)), ("rewind", START)]
    assert engine.device.log[: len(woken)] == woken
    assert only(engine.device.log, "step") == [*range(START, START + WAKE_STEPS), *range(START, START + 3)]
    engine.device.log.clear()
    session.run(FakeProbe(idle=True), steps=3, built=True)
    assert only(engine.device.log, "rewind") == [START]


def test_every_run_starts_from_one_position() -> None:
    """Rewound before the first step, every time, also after a prefill in between."""
    session, engine = fake_decoder()
    for _ in range(3):
        session.run(FakeProbe(), steps=7)
    session.time_to_first_token()
    session.prepare()
    engine.device.log.clear()
    session.run(FakeProbe(), steps=7)
    assert engine.device.log[:2] == [("rewind", START), ("step", START)]

    session, engine = fake_decoder()
    seen = [session.run(FakeProbe(), steps=7)[1] for _ in range(3)]
    assert seen[0] == seen[1] == seen[2]
    assert only(engine.device.log, "rewind") == [START] * 3
    assert only(engine.device.log, "step") == list(range(START, START + 7)) * 3


def test_the_end_of_sequence_is_ignored() -> None:
    """An engine that says nothing but the end decodes all the same."""
    session, engine = fake_decoder(token_at=lambda position: 1)
    run, tokens = session.run(FakeProbe())
    assert tokens == [1] * 64
    assert engine.steps == run.tokens == 64


@pytest.mark.parametrize("planted", [0.1, 0.25, 1.0])
def test_a_planted_slowdown_slows_by_its_fraction(planted: float) -> None:
    """Neither the device's pipelining nor a short block swallows it."""
    for steps in (5, 64):
        plain = fake_decoder(tick=1e-6)[0].run(FakeProbe(), steps)[0]
        slowed = fake_decoder(tick=1e-6, planted=planted)[0].run(FakeProbe(), steps)[0]
        assert slowed.seconds / plain.seconds == pytest.approx(1 + planted, rel=1e-3)
        assert sum(slowed.step_s) == pytest.approx(slowed.seconds)
        assert slowed.step_s[2] == pytest.approx(plain.step_s[2] * (1 + planted), rel=1e-2)


def test_a_planted_slowdown_is_there_at_the_first_token() -> None:
    """Prefill is slowed alike."""
    plain = fake_decoder(tick=1e-6)[0].time_to_first_token()
    slowed = fake_decoder(tick=1e-6, planted=0.5)[0].time_to_first_token()
    assert slowed / plain == pytest.approx(1.5, rel=1e-3)


def test_the_first_token_is_prefill_and_its_read() -> None:
    """Half a second of prefill, to the moment that its token is in hand."""
    session, _ = fake_decoder(prefill_s=0.5)
    assert session.time_to_first_token() == pytest.approx(0.5)


def test_conditions_are_those_around_the_run() -> None:
    """The probe runs from before the first step to after the last read, once a run."""
    session, _ = fake_decoder()
    probe = FakeProbe([Conditions(load1=1.0), Conditions(load1=2.0)])
    assert session.run(probe)[0].conditions.load1 == 1.0
    assert session.run(probe)[0].conditions.load1 == 2.0
    assert (probe.started, probe.stopped) == (2, 2)
    assert session.run(probe)[0].faults == ()


def test_tokens_that_change_are_invalid() -> None:
    """Greedy decode that does not repeat itself stops everything, naming the step."""
    session, engine = fake_decoder()
    session.same_tokens(session.run(FakeProbe())[1])
    session.same_tokens(session.run(FakeProbe())[1])
    engine.token_at = lambda position: 5 if position == START + 10 else several(position)
    with pytest.raises(InvalidError, match="differ from step 10 on") as caught:
        session.same_tokens(session.run(FakeProbe())[1])
    assert "nano/text/pp40-tg64" in caught.value.found


def test_a_shorter_run_is_compared_as_far_as_it_goes() -> None:
    """A block of five must repeat the first five tokens of a run."""
    session, _ = fake_decoder()
    _, tokens = session.run(FakeProbe())
    session.same_tokens(tokens)
    session.same_tokens(tokens[:5])
    with pytest.raises(InvalidError, match="step 5"):
        session.same_tokens([*tokens[:4], 999])


def test_the_token_digest_names_what_decode_alone_gives() -> None:
    """Equal decode, equal digest; one other token among the first, another digest. The prompt's prefill has no say."""

    def digest(**engine: Any) -> str:
        session, _ = fake_decoder(**engine)
        session.same_tokens(session.run(FakeProbe())[1])
        return session.token_digest()

    assert digest() == digest(step_s=0.02, token_at=lambda position: 9 if position >= 40 else several(position))
    assert digest() != digest(token_at=lambda position: 9 if position == 7 else several(position))


def test_a_prefill_that_differs_is_told() -> None:
    """Every first token is remembered, those of timed prefills too."""
    session, engine = fake_decoder()
    session.time_to_first_token()
    assert session.prefill_reproducible()
    engine.token_at = lambda position: 9
    session.time_to_first_token()
    assert not session.prefill_reproducible()


def test_logits_that_are_not_finite_stop_the_preparation() -> None:
    """A fast NaN is not a result."""
    with pytest.raises(NonFiniteError):
        fake_decoder(finite=False)


def test_the_position_follows_the_prompt_by_the_warm_tokens() -> None:
    """The look at the logits leaves no position behind."""
    session, engine = fake_decoder()
    assert engine.position == START
    session.run(FakeProbe(), steps=3)
    assert session.kv_bytes() == 8 * (START + 3)


def test_a_bare_loop_starts_where_runs_start() -> None:
    """It gets the position's token and the engine's cache, rewound."""
    session, engine = fake_decoder()
    session.run(FakeProbe())
    engine.cache = ["cache"]
    token, cache = session.bare_start()
    assert token.position == engine.position == START
    assert cache is engine.cache


def test_mlx_tells_peak_memory() -> None:
    """A reset starts a new peak, and what is then computed shows in it."""
    import mlx.core as mx

    device = MlxDevice()
    device.reset_peak_memory()
    before = device.peak_memory()
    array = mx.ones((1 << 20,)) * 2
    device.dispatch(array)
    device.wait(array)
    assert device.peak_memory() >= before + 4 * (1 << 20)
