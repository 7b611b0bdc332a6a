from collections.abc import Mapping

import pytest

from gemma3n_perf.duel.scheduler import ComparisonState, Rules, fight
from gemma3n_perf.duel.tools import Job
from gemma3n_perf.errors import UsageError, WorkerFailedError
from tests.duel.arena import ARMS, Arena

TEXT, LONG = "nano/text/pp40-tg64", "nano/text/pp140-tg64"
RULES = Rules(budget_s=20.0, min_launches=3, cooldown_s=30.0)


def never(state: Mapping[str, ComparisonState]) -> frozenset[str]:
    """Nothing is ever shown."""
    return frozenset()


def run(
    arena: Arena, *workloads: str, rules: Rules = RULES, look: object = never, pairs: int = 10
) -> dict[str, ComparisonState]:
    """Fight over workloads in launches of ``pairs`` pairs: 2.8 s each at 20 ms a token."""
    jobs = [Job(name, "nano", "/root") for name in workloads or (TEXT,)]
    return fight(jobs, ARMS, arena.tools, rules, look=look, pairs=lambda pair_s, start_s: pairs)  # type: ignore[arg-type]


def test_launches_go_on_until_the_budget_holds_no_other() -> None:
    """20 s hold seven launches of 2.8 s, and the budget then counts as spent."""
    arena = Arena()
    found = run(arena)[TEXT]
    assert len(found.launches) == 7
    assert found.seconds == pytest.approx(19.6)
    assert found.spent
    assert len(arena.workers) == 14


def test_every_launch_has_fresh_processes() -> None:
    """No worker serves two launches, and all have ended."""
    arena = Arena()
    run(arena)
    assert all(worker.closed for worker in arena.workers)
    assert {launch for launch, _ in arena.blocks} == set(range(7))


def test_a_settled_workload_stops() -> None:
    """Not before the fewest launches, and without its budget spent."""
    found = run(Arena(), look=lambda state: frozenset(state))[TEXT]
    assert len(found.launches) == 3
    assert not found.spent


def test_the_fewest_launches_are_taken_even_over_budget() -> None:
    """A machine that turned slow still gives the first look."""
    found = run(Arena(), rules=Rules(5.0, 3))[TEXT]
    assert len(found.launches) == 3


def test_workloads_take_turns_and_stop_one_by_one() -> None:
    """One that is settled leaves the others their launches."""
    arena = Arena()
    found = run(arena, TEXT, LONG, look=lambda state: frozenset([TEXT]))
    assert (len(found[TEXT].launches), len(found[LONG].launches)) == (3, 7)
    order = [worker.asked[0].workload for worker in arena.workers[::2]]  # type: ignore[union-attr]
    assert order[:6] == [TEXT, LONG] * 3


def test_a_failure_ends_its_workload_and_no_other() -> None:
    """What was measured before stays."""
    arena = Arena(raises={("candidate", "block"): WorkerFailedError("it hung")}, from_launch=4)
    found = run(arena, TEXT, LONG)
    assert found[TEXT].failure is not None
    assert "it hung" in str(found[LONG].failure)
    assert len(found[TEXT].launches) == 2


def test_a_budget_too_short_is_refused_before_measuring() -> None:
    """The pace is settled after the warm-up, and its refusal ends all."""

    def refuse(pair_s: float, start_s: float) -> int:
        raise UsageError("too short")

    arena = Arena()
    with pytest.raises(UsageError, match="too short"):
        fight([Job(TEXT, "nano", "/root")], ARMS, arena.tools, RULES, look=never, pairs=refuse)
    assert arena.probed == 0
    assert all(worker.closed for worker in arena.workers)


def test_sessions_share_the_budget_with_rests_between() -> None:
    """Each takes its part, and a settled one is not cut short in the others."""
    arena = Arena()
    found = run(arena, rules=Rules(28.0, 3, sessions=2))[TEXT]
    assert [launch.session for launch in found.launches] == [0] * 5 + [1] * 5
    assert arena.slept == [30.0]
    found = run(Arena(), rules=Rules(28.0, 3, sessions=2), look=lambda state: frozenset(state))[TEXT]
    assert [launch.session for launch in found.launches] == [0] * 3 + [1] * 3


def test_progress_tells_the_time_left() -> None:
    """From the second launch on, for the first tells how long one takes."""
    arena = Arena()
    run(arena)
    assert arena.notes[0] == f"{TEXT}: launch 1, starting both arms"
    assert "at most" in arena.notes[2]


def test_rules_that_cannot_be_carried_out_are_refused() -> None:
    """A budget of nothing, and no session."""
    with pytest.raises(UsageError):
        Rules(0.0, 3)
    with pytest.raises(UsageError):
        Rules(60.0, 3, sessions=0)
