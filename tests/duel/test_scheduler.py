from dataclasses import replace

import pytest

from gemma3n_perf.duel.scheduler import ComparisonKey, ComparisonState, Rules, Settled, States, measure_all
from gemma3n_perf.duel.tools import ON_CPU, Job, Tools
from gemma3n_perf.errors import BadConditionsError, InvalidError, UsageError, WorkerFailedError
from tests.duel.arena import ARMS, Arena, arm

TEXT, LONG, OTHER = "nano/text/pp40-tg64", "nano/text/pp140-tg64", "e2b-4bit/text/pp40-tg64"
RULES = Rules(budget_s=20.0, min_launches=3, cooldown_s=30.0)


def never(states: States) -> frozenset[ComparisonKey]:
    """Nothing is ever shown."""
    return frozenset()


def run(
    arena: Arena, *workloads: str, rules: Rules = RULES, settled: Settled = never, pairs: int = 10
) -> dict[str, ComparisonState]:
    """Measure workloads in launches of ``pairs`` pairs: 2.8 s each at 20 ms a token."""
    jobs = [Job(name, name.split("/")[0], "/root") for name in workloads or (TEXT,)]
    found = measure_all(jobs, ARMS, arena.tools, rules, settled=settled, pairs=lambda pair_s, start_s: pairs)
    return {workload: one for (workload, _), one in found.items()}


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


def test_a_worker_is_waited_for_as_long_as_earlier_launches_excuse() -> None:
    """A first launch may compile for minutes; where it took seconds, one that hangs later is seen in a minute."""
    quick, slow = Arena(), Arena(tpot_s=lambda name, launch: 0.2)
    run(quick)
    run(slow, rules=replace(RULES, budget_s=200.0))
    for arena, later in ((quick, (60.0, 100.0)), (slow, (300.0, 900.0))):
        waits = [worker.longest_wait_s for worker in arena.workers]
        assert waits[:2] == [900.0, 900.0]
        assert all(later[0] <= one <= later[1] for one in waits[2:])


def test_a_settled_workload_stops() -> None:
    """Not before the fewest launches, and without its budget spent."""
    found = run(Arena(), settled=frozenset)[TEXT]
    assert len(found.launches) == 3
    assert not found.spent


def test_the_fewest_launches_are_taken_even_over_budget() -> None:
    """A machine that turned slow still gives the first look."""
    found = run(Arena(), rules=Rules(5.0, 3))[TEXT]
    assert len(found.launches) == 3


def test_a_launch_measures_all_workloads_of_a_checkpoint() -> None:
    """Each arm is started once for them; one that is settled leaves the others their launches."""
    arena = Arena()
    found = run(arena, TEXT, LONG, settled=lambda states: frozenset([(TEXT, "candidate")]))
    assert (len(found[TEXT].launches), len(found[LONG].launches)) == (3, 7)
    assert len(arena.workers) == 14
    assert [workload for launch, name, workload in arena.prepared if name == "baseline"][:8] == [TEXT, LONG] * 3 + [
        LONG
    ] * 2


def test_checkpoints_take_turns() -> None:
    """Two checkpoints are never in one process."""
    arena = Arena()
    run(arena, TEXT, OTHER, rules=Rules(9.0, 3))
    order = [worker.asked[0].source for worker in arena.workers[::2]]  # type: ignore[union-attr]
    assert order == ["nano", "e2b-4bit"] * 3


def test_a_failure_ends_its_workload_and_no_other() -> None:
    """What was measured before stays, and the launch goes on with the next workload."""
    error = InvalidError("another token")
    arena = Arena(raises={("candidate", "prepare"): error}, from_launch=2, spares=frozenset({LONG}))
    found = run(arena, TEXT, LONG)
    assert found[TEXT].failure is error
    assert (len(found[TEXT].launches), len(found[LONG].launches)) == (2, 7)


def test_a_process_that_is_gone_leaves_the_other_workloads_the_next_launch() -> None:
    """They are not blamed for it."""
    error = WorkerFailedError("it ended")
    arena = Arena(raises={("candidate", "prepare"): error}, from_launch=2, spares=frozenset({LONG}))
    found = run(arena, TEXT, LONG)
    assert found[TEXT].failure is error
    assert (found[LONG].failure, len(found[LONG].launches)) == (None, 7)
    assert len(arena.workers) == 16


def test_arms_that_do_not_start_end_all_their_workloads() -> None:
    """There is nothing to measure."""
    arena = Arena(raises={("candidate", "hello"): WorkerFailedError("no Python")})
    assert {str(one.failure) for one in run(arena, TEXT, LONG).values()} == {"no Python"}


def test_a_budget_too_short_is_refused_before_measuring() -> None:
    """The plan is made after the warm-up, and its refusal ends all."""

    def refuse(pair_s: float, start_s: float) -> int:
        raise UsageError("too short")

    arena = Arena()
    with pytest.raises(UsageError, match="too short"):
        measure_all([Job(TEXT, "nano", "/root")], ARMS, arena.tools, RULES, settled=never, pairs=refuse)
    assert arena.probed == 0
    assert all(worker.closed for worker in arena.workers)


def test_a_launch_that_was_disturbed_is_left_out() -> None:
    """The next one is measured; only where it happens again and again is the workload not measured."""
    # A launch is given up after 13 pairs of discarded blocks.
    arena = Arena(contended=lambda interval: 40 <= interval < 66)
    found = run(arena, TEXT, LONG)
    assert [len(one.launches) for one in found.values()] == [7, 7]
    assert [one.failure for one in found.values()] == [None, None]
    (caution,) = found[TEXT].cautions + found[LONG].cautions
    assert caution.code == "disturbed"
    assert caution.found.startswith("1 launch was left out: 13 pairs of blocks of one launch were discarded (steal")
    always = run(Arena(contended=lambda interval: interval >= 40))[TEXT]
    assert isinstance(always.failure, BadConditionsError)
    assert len(always.launches) == 1
    assert "3 launches were left out" in always.cautions[0].found


def test_sessions_share_the_budget_with_rests_between() -> None:
    """Each takes its part, and a settled one is not cut short in the others."""
    arena = Arena()
    found = run(arena, rules=Rules(28.0, 3, sessions=2))[TEXT]
    assert [launch.session for launch in found.launches] == [0] * 5 + [1] * 5
    assert arena.slept == [30.0]
    found = run(Arena(), rules=Rules(28.0, 3, sessions=2), settled=frozenset)[TEXT]
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


def test_candidates_that_memory_does_not_hold_at_once_take_turns() -> None:
    """Each launch has as many as fit, and all have their launches in the end."""
    arena = Arena()
    arms = (ARMS[0], *(arm(f"{number}:x") for number in range(3)))
    rules = Rules(9.0, 3, most_candidates=2)
    found = measure_all([Job(TEXT, "nano", "/root")], arms, arena.tools, rules, settled=never, pairs=lambda *_: 10)
    assert [len(one.launches) for one in found.values()] == [3, 3, 3]
    greeted = [worker.arm.name for worker in arena.workers]
    assert len(greeted) == greeted.count("baseline") + 9
    assert greeted.count("baseline") == 5


def with_fusion(tools: Tools, *workloads: str) -> dict[str, ComparisonState]:
    """Measure a candidate with a fusion beside an unfused baseline."""
    arms = (arm("baseline"), replace(arm("candidate"), fusions=("mine",)))
    jobs = [Job(name, name.split("/")[0], "/root") for name in workloads or (TEXT,)]
    found = measure_all(jobs, arms, tools, RULES, settled=never, pairs=lambda pair_s, start_s: 10)
    return {workload: one for (workload, _), one in found.items()}


def test_a_baseline_is_timed_again_when_fusions_have_ended() -> None:
    """On a GPU, on the last workload of a launch, which takes turns; in its own process, which a candidate may slow."""
    arena = Arena(beside=1.5)
    found = with_fusion(arena.tools, TEXT, LONG)
    assert [one.after_s for one in found[LONG].launches] == [0.02, None] * 2 + [0.02]
    assert [one.after_s for one in found[TEXT].launches] == [None, 0.02] * 2 + [None]
    assert {tpot for one in found[LONG].launches for tpot in one.tpot_s("baseline")} == {0.03}
    assert all(worker.closed for worker in arena.workers)


def test_a_baseline_is_not_timed_again_where_nothing_asks_for_it() -> None:
    """On a CPU, whose time is watched itself; without fusions; and on a disturbed machine nothing is known."""
    on_cpu = with_fusion(replace(Arena().tools, layout=ON_CPU))
    assert {one.after_s for one in on_cpu[TEXT].launches} == {None}
    assert {one.after_s for one in run(Arena())[TEXT].launches} == {None}
    arena = Arena()
    arena.contended = lambda block: all(one.closed for one in arena.workers if one.arm.name == "candidate")
    disturbed = with_fusion(arena.tools)[TEXT]
    assert {one.after_s for one in disturbed.launches} == {None}
    assert len(disturbed.launches) == 7
