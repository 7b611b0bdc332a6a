from dataclasses import replace

import pytest

from gemma3n_perf.decode.runs import RetryPolicy, RunCollector
from gemma3n_perf.errors import BadConditionsError, InvalidError
from gemma3n_perf.hardware.types import Conditions, Fault
from tests.decode.fakes import FakeEngine, FakeProbe, fake_decoder

GOOD, BUSY, HOT = Conditions(load1=0.1), Conditions(load1=9.0), Conditions(load1=9.0, thermal="serious")


def faults_of(conditions: Conditions) -> tuple[Fault, ...]:
    """Judge by load and thermal state."""
    found = []
    if conditions.load1 is not None and conditions.load1 > 1:
        found.append(Fault("busy", f"load is {conditions.load1}", "stop what runs beside"))
    if conditions.thermal:
        found.append(Fault("hot", f"thermal state is {conditions.thermal}", "let it cool"))
    return tuple(found)


def rounds(
    *conditions: Conditions, required: int = 4, retry_policy: RetryPolicy | None = None
) -> tuple[RunCollector, list[float], FakeEngine]:
    """Return rounds over a fake session, the pauses they take, and the engine."""
    session, engine = fake_decoder()
    pauses: list[float] = []
    made = RunCollector(
        session,
        FakeProbe(list(conditions)),
        faults_of,
        required=required,
        sleep=pauses.append,
        retry_policy=retry_policy,
    )
    return made, pauses, engine


def test_a_run_under_good_conditions_counts() -> None:
    """It is kept with its conditions, and nothing is waited for."""
    made, pauses, _ = rounds(GOOD)
    run = made.take()
    assert made.runs == [run]
    assert run.conditions == GOOD
    assert (made.discarded, pauses) == ([], [])


def test_a_run_under_bad_conditions_is_repeated_after_growing_pauses() -> None:
    """Three bad runs are discarded with pauses that double; the fourth counts."""
    made, pauses, _ = rounds(BUSY, HOT, BUSY, GOOD)
    run = made.take()
    assert run.conditions == GOOD
    assert made.runs == [run]
    assert pauses == [0.5, 1.0, 2.0]
    assert [kept.faults for kept in made.discarded] == [("busy",), ("busy", "hot"), ("busy",)]
    assert [kept.conditions for kept in made.discarded] == [BUSY, HOT, BUSY]
    assert run.faults == ()


def test_pauses_start_over_with_every_run_and_have_a_ceiling() -> None:
    """A machine that recovered is not punished for what was."""
    made, pauses, _ = rounds(BUSY, GOOD, BUSY, GOOD)
    made.take()
    made.take()
    assert pauses == [0.5, 0.5]
    some = RetryPolicy(first_pause=1.0, longest_pause=3.0).pauses()
    assert [next(some) for _ in range(5)] == [1.0, 2.0, 3.0, 3.0, 3.0]


def test_too_many_discards_give_up_with_the_worst_fault() -> None:
    """The error counts every fault, quotes the latest of the commonest and gives its remedy."""
    made, pauses, _ = rounds(HOT, HOT, BUSY, BUSY, BUSY, Conditions(load1=7.0), Conditions(load1=8.0), required=4)
    with pytest.raises(BadConditionsError) as caught:
        made.take()
    assert caught.value.found == "7 runs were discarded (busy x7, hot x2); last: load is 8.0"
    assert caught.value.remedy == "stop what runs beside"
    assert caught.value.exit_code == 4
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert len(made.discarded) == 7
    assert made.runs == []


def test_patience_is_for_all_runs_together() -> None:
    """Discards add up over the runs; with ten required, eight may be discarded and the ninth is too many."""
    assert [RetryPolicy().most_discards(required) for required in (1, 3, 6, 10, 20)] == [6, 6, 6, 8, 16]
    made, _, _ = rounds(*[BUSY, GOOD] * 8, BUSY, required=10)
    for _ in range(8):
        made.take()
    with pytest.raises(BadConditionsError, match="9 runs were discarded"):
        made.take()
    assert len(made.runs) == 8


def test_tokens_are_compared_in_discarded_runs_too() -> None:
    """A wrong token is wrong under any conditions."""
    made, _, engine = rounds(GOOD, BUSY, GOOD)
    made.take()
    engine.token_at = lambda position: 3
    with pytest.raises(InvalidError, match="differ from step 1 on"):
        made.take()


def test_discarded_runs_keep_their_times() -> None:
    """What was discarded can be looked at later: it differs from a run that counts by its faults alone."""
    made, _, _ = rounds(BUSY, GOOD)
    run = made.take()
    assert replace(made.discarded[0], faults=(), conditions=GOOD).tokens == run.tokens
    assert made.discarded[0].seconds == pytest.approx(run.seconds)
