import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import pytest
from msgspec.structs import replace as replace_block

from gemma3n_perf.decode.decoder import WAKE_STEPS
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.launch import Launch, LaunchPlan, measure, warm_up
from gemma3n_perf.duel.startup import Prepared, prepare, started
from gemma3n_perf.duel.tools import ON_CPU, ON_CUDA, BlockLayout, Job, Tools
from gemma3n_perf.errors import (
    ArmUnavailableError,
    BadConditionsError,
    InvalidError,
    NotComparableError,
    OutOfMemoryError,
    PerfError,
    WorkerFailedError,
)
from gemma3n_perf.hardware.types import Stack
from tests.duel.arena import ARMS, LOADED, Arena, arm, with_version

JOB = Job("nano/text/pp40-tg64", "nano", "/root")
PLAN = LaunchPlan(6, 20)
UNCHECKED = 12
"""The last protocol whose workers give no logits of a block."""
DROP, TAIL = BlockLayout().drop, BlockLayout().tail
SEVERAL = (replace(arm("baseline"), group="one"), replace(arm("1:x"), group="one", planted=0.5), arm("2:y"))


@contextmanager
def ready(arms: Sequence[ReadyArm], tools: Tools, job: Job = JOB) -> Iterator[Prepared]:
    """Start arms and prepare a workload on all of them."""
    with started(arms, tools) as running:
        yield prepare(running, job, [arm.name for arm in arms[1:]], tools)


def launch(arena: Arena, plan: LaunchPlan = PLAN) -> Launch:
    """Start both arms and measure."""
    with ready(ARMS, arena.tools) as running:
        found = measure(running, plan, arena.tools, session=0, start_s=1.0)["candidate"]
    assert isinstance(found, Launch)
    return found


def test_every_pair_has_a_block_of_each_arm_in_random_order() -> None:
    """Neither arm is always first, and each has as many blocks."""
    found = launch(Arena())
    assert len(found.pairs) == 20
    assert all({block.arm for block in pair} == {"baseline", "candidate"} for pair in found.pairs)
    firsts = Counter(pair[0].arm for pair in found.pairs)
    assert min(firsts.values()) >= 4
    assert len(found.tpot_s("baseline")) == len(found.tpot_s("candidate")) == 20


def test_the_record_keeps_which_block_was_whose() -> None:
    """An arm that is slower is slower in the record."""
    found = launch(Arena(tpot_s=lambda name, launch: {"baseline": 0.02, "candidate": 0.03}[name]))
    assert set(found.tpot_s("baseline")) == {0.02}
    assert set(found.tpot_s("candidate")) == {0.03}
    assert found.seconds == pytest.approx(20 * 6 * 0.05)


def test_the_record_keeps_the_steps_of_each_block() -> None:
    """Those of an arm whose worker tells none are missed in both."""
    steps = (0.01, 0.02, 0.03)
    found = launch(Arena(steps_s=lambda tpot: steps))
    assert found.step_s("baseline") == found.step_s("candidate") == (steps,) * 20
    found = launch(Arena(steps_s=lambda tpot: steps, silent=frozenset({"candidate"})))
    assert found.step_s("baseline") == found.step_s("candidate") == ()
    assert found.tpot_s("candidate") == (0.02,) * 20


def test_which_arm_is_started_first_is_drawn() -> None:
    """Over launches with different draws, each comes first."""
    firsts = {launch(Arena(seed=seed), LaunchPlan(6, 1)).started_first for seed in range(8)}
    assert firsts == {"baseline", "candidate"}


def test_both_arms_are_told_to_load_before_either_is_waited_for() -> None:
    """Loading takes the time of the slower arm, not of both."""
    arena = Arena()
    with ready(ARMS, arena.tools):
        assert [type(worker.asked[0]) for worker in arena.workers] == [wire.Load, wire.Load]
        loads = [worker.asked[0] for worker in arena.workers]
        assert loads[0] == wire.Load("nano/text/pp40-tg64", "nano", "/root", "mlx_vlm", 0.0)


def test_a_contended_block_is_discarded_with_its_pair_and_repeated() -> None:
    """The pair is kept apart with its faults, its time counts as measuring, and the pauses grow."""
    arena = Arena(contended=lambda block: block in (2, 4, 7))
    found = launch(arena, LaunchPlan(6, 5))
    assert len(found.pairs) == 5
    assert [[block.faults for block in pair] for pair in found.discarded] == [
        [("steal",), ()],
        [("steal",), ()],
        [(), ("steal",)],
    ]
    assert found.seconds == pytest.approx(8 * 2 * 6 * 0.02)
    assert arena.slept == pytest.approx([0.1, 0.2, 0.4])


def test_a_machine_that_is_never_quiet_is_given_up() -> None:
    """After as many discards as patience allows, with the reason and its remedy; the workers are gone."""
    arena = Arena(contended=lambda block: True)
    with pytest.raises(BadConditionsError, match="steal") as caught:
        launch(arena)
    assert caught.value.remedy == "find another machine"
    assert all(worker.closed for worker in arena.workers)


def test_workers_end_with_their_launch() -> None:
    """Whatever happens inside."""
    arena = Arena(raises={("candidate", "prepare"): OutOfMemoryError("no room")})
    with pytest.raises(OutOfMemoryError), ready(ARMS, arena.tools):
        pass
    assert [worker.closed for worker in arena.workers] == [True, True]


@pytest.mark.parametrize("what", ["checkpoint_digest", "prompt_digest", "prompt_tokens", "generated_tokens"])
def test_arms_that_do_different_work_are_not_compared(what: str) -> None:
    """The error names what differs."""
    other = msgspec.structs.replace(LOADED, **{what: 7 if what.endswith("tokens") else "other"})
    arena = Arena(loaded={"candidate": other})
    with pytest.raises(NotComparableError, match=what.replace("_", " ")), ready(ARMS, arena.tools):
        pass


@pytest.mark.parametrize("stacks", [{}, {"candidate": with_version(mlx="0.32.3")}])
def test_other_tokens_beside_a_worker_without_whole_runs_are_invalid(stacks: dict[str, Stack]) -> None:
    """A fast wrong answer is no answer, whatever the programs were built from."""
    arena = Arena(tokens={"candidate": "tokens:2"}, stacks=stacks, protocols={"baseline": 4})
    with (
        pytest.raises(InvalidError, match=r"different greedy tokens[\s\S]*--outputs-may-differ"),
        ready(ARMS, arena.tools),
    ):
        pass


def test_other_tokens_of_a_short_text_wait_for_the_whole_run() -> None:
    """A near tie may part twelve tokens, and only a whole run has its logits told."""
    with ready(ARMS, Arena(tokens={"candidate": "tokens:2"}).tools) as running:
        assert running.parted == {"candidate"}
    with ready(ARMS, Arena().tools) as running:
        assert not running.parted


def test_a_worker_of_another_protocol_is_refused() -> None:
    """Before it is asked for anything."""
    arena = Arena()
    tools = arena.tools

    class Old:
        """Greets in another protocol."""

        asked: list[wire.Request] = []  # noqa: RUF012

        def send(self, request: wire.Request) -> None:
            """Keep it."""
            self.asked.append(request)

        def receive(self, timeout_s: float) -> wire.Reply:
            """Greet."""
            return wire.Hello(99, 1, {})

        def was_stopped(self) -> bool:
            """Never."""
            return False

        def close(self) -> None:
            """End."""

    with (
        pytest.raises(WorkerFailedError, match="protocol 99"),
        ready(ARMS, replace(tools, spawn=lambda arm, shared: Old())),
    ):
        pass
    assert Old.asked == []


def test_blocks_are_long_enough_to_be_timed_and_stay_within_the_shape() -> None:
    """At least five tokens that count and three hundredths of a second, never more steps than the workload has."""
    asked: list[float] = []

    def pairs(pair_s: float) -> int:
        asked.append(pair_s)
        return 9

    for tpot_s, generate, steps in ((0.02, 64, 7), (0.004, 64, DROP + 8 + TAIL), (0.0004, 64, 64), (1.5, 4, 4)):
        arena = Arena(tpot_s=lambda name, launch, t=tpot_s: t)  # type: ignore[misc]
        with ready(ARMS, arena.tools) as running:
            plan, _ = warm_up(running, arena.tools, generate, None, pairs)
        assert plan == LaunchPlan(steps, 9)
        assert asked[-1] == pytest.approx(2 * steps * tpot_s)


def test_a_new_process_on_cuda_decodes_until_it_has_met_its_graphs() -> None:
    """Each arm by itself, before anything counts: a candidate would be newer than a baseline that others had."""
    arms = (arm("baseline"), arm("0:x"), arm("1:x"))
    for tpot_s, least, most in ((0.002, ON_CUDA.new_tokens, ON_CUDA.new_tokens + 40), (0.05, 50, 90)):
        arena = Arena(tpot_s=lambda name, launch, t=tpot_s: t)  # type: ignore[misc]
        tools = replace(arena.tools, layout=ON_CUDA)
        with ready(arms, tools) as running:
            warm_up(running, tools, 64, None, lambda pair_s: 1)
        decoded = [sum(one.steps for one in worker.asked if isinstance(one, wire.Block)) for worker in arena.workers]
        assert len(decoded) == 3
        assert all(least <= one <= most for one in decoded)


def test_a_pace_once_settled_stays() -> None:
    """Launches of one duel are alike."""
    arena = Arena()
    with ready(ARMS, arena.tools) as running:
        assert warm_up(running, arena.tools, 64, PLAN, lambda pair_s: 1)[0] is PLAN


@pytest.mark.parametrize(("protocol", "tail"), [(UNCHECKED, TAIL), (wire.OLDEST, 0)])
def test_both_arms_leave_out_the_same_ends_of_a_block(protocol: int, tail: int) -> None:
    """A commit whose worker knows no tail is timed as it can be, and so is the arm beside it."""
    arena = Arena(tpot_s=lambda name, launch: 0.02, protocols={"baseline": protocol})
    with ready(ARMS, arena.tools) as running:
        measure(running, LaunchPlan(7, 2), arena.tools, session=0, start_s=1.0)
    blocks = [one for worker in arena.workers for one in worker.asked if isinstance(one, wire.Block)]
    assert Counter(block.steps for block in blocks) == {7: 4, WAKE_STEPS: 4}
    assert {(block.drop, block.tail) for block in blocks} == {(DROP, tail)}


@pytest.mark.parametrize(
    ("protocol", "block"), [(wire.PROTOCOL, wire.Block(1, 0, 0, built=True, settled=True)), (3, wire.Block(3, 0, 0))]
)
def test_on_a_cpu_a_block_is_one_whole_token(protocol: int, block: wire.Block) -> None:
    """There dispatch takes as long as computing, so nothing is left out; beside an older commit, blocks are longer."""
    arena = Arena(tpot_s=lambda name, launch: 0.02, protocols={"baseline": protocol})
    tools = replace(arena.tools, layout=ON_CPU)
    with ready(ARMS, tools) as running:
        plan, _ = warm_up(running, tools, 64, None, lambda pair_s: 1)
        measure(running, plan, tools, session=0, start_s=1.0)
    asked = [one for worker in arena.workers for one in worker.asked if isinstance(one, wire.Block)]
    blocks = {replace_block(one, text=-1) for one in asked}
    assert blocks == ({block, replace_block(block, continued=True)} if protocol == wire.PROTOCOL else {block})


@pytest.mark.parametrize("protocol", [UNCHECKED, 10])
@pytest.mark.parametrize("layout", [ON_CPU, BlockLayout()])
def test_both_blocks_of_a_pair_decode_one_text_and_the_next_pair_another(protocol: int, layout: BlockLayout) -> None:
    """Wherever they rewind: what was learned of a text is of no use. A worker that is too old knows one alone."""
    arena = Arena(protocols={"baseline": protocol})
    tools = replace(arena.tools, layout=layout)
    with ready(ARMS, tools) as running:
        measure(running, LaunchPlan(7, 30), tools, session=0, start_s=1.0)
    texts = [
        [one.text for one in worker.asked if isinstance(one, wire.Block) and not one.continued and one.steps == 7]
        for worker in arena.workers
    ]
    assert texts[0] == texts[1]
    known = [one for one in texts[0] if one >= 0]
    assert len(set(known)) == len(known)
    assert bool(known) is (protocol == UNCHECKED)
    assert len(texts[0]) == (30 if layout is not ON_CPU else 4)


@pytest.mark.parametrize(
    ("shape", "oldest"), [("pp40-tg64", 1), ("pp40-tg64-b4", 9), ("pp200-tg64", 9), ("pp40-tg64@mlx_lm", 10)]
)
def test_an_arm_that_is_too_old_for_a_workload_is_not_measured(shape: str, oldest: int) -> None:
    """Before it is asked to load it; the next protocol's worker is."""
    job = replace(JOB, workload=f"nano/text/{shape}")
    arena = Arena(protocols={"baseline": oldest})
    with ready(ARMS, arena.tools, job) as running:
        assert set(running.sides) == {"baseline", "candidate"}
    if oldest == 1:
        return
    arena = Arena(protocols={"baseline": oldest - 1})
    with pytest.raises(ArmUnavailableError, match=f"too old for nano/text/{shape}"), ready(ARMS, arena.tools, job):
        pass
    assert not [one for worker in arena.workers for one in worker.asked]


@pytest.mark.parametrize("protocol", [9, 10])
def test_an_arm_that_may_not_know_a_preset_is_given_its_folder(protocol: int) -> None:
    """Presets that came later, and those whose folder was another at its time."""
    arena = Arena(protocols={"baseline": protocol})
    with ready(ARMS, arena.tools, replace(JOB, workload="nano-8bit/text/pp40-tg64", source="nano-8bit")):
        sources = [one.source for worker in arena.workers for one in worker.asked if isinstance(one, wire.Load)]
    assert sources == ["nano-8bit" if protocol == 10 else f"{JOB.root}/nano-8bit-v2"] * 2


@pytest.mark.parametrize("candidates", [1, 2])
def test_both_arms_of_a_pair_are_at_one_position(candidates: int) -> None:
    """Blocks go on through the workload's tokens, then rewind, the baseline's with each candidate's in step."""
    arms = (arm("baseline"), *(arm(f"{number}:x") for number in range(candidates)))
    arena = Arena(tpot_s=lambda name, launch: 0.01, protocols={"baseline": UNCHECKED})
    tools = replace(arena.tools, layout=ON_CPU)
    with ready(arms, tools) as running:
        plan, _ = warm_up(running, tools, 64, None, lambda pair_s: 80)
        measure(running, plan, tools, session=0, start_s=1.0)
    asked = [[one.continued for one in worker.asked if isinstance(one, wire.Block)] for worker in arena.workers]
    for blocks in asked:
        starts = [number for number, on in enumerate(blocks) if not on] + [len(blocks)]
        # Of 64 tokens, 63 are timed: one more step is built.
        longest = max(b - a for a, b in itertools.pairwise(starts))
        assert longest == 63
        assert len(starts) < len(blocks) / 4
    if candidates == 1:
        assert asked[0] == asked[1]


def test_models_of_one_process_do_not_go_on() -> None:
    """They may share a decoder, which has one position."""
    arena = Arena()
    with ready(SEVERAL, replace(arena.tools, layout=ON_CPU)) as running:
        assert not running.can_continue


def test_the_threads_of_both_arms_are_held_on_the_same_cores() -> None:
    """Once warm, and the record of the launch says so; arms of one process have the same cores anyway."""
    for arms, pinned in ((ARMS, True), (SEVERAL[:2], False)):
        readings = iter(range(100))
        arena = Arena(used_s=lambda pid, n=readings: {10 * pid: next(n)})  # type: ignore[misc]
        with ready(arms, arena.tools) as running:
            plan, seen = warm_up(running, arena.tools, 64, PLAN, lambda pair_s: 1)
            found = measure(running, plan, arena.tools, session=0, start_s=1.0, pinned=seen)[arms[1].name]
        assert isinstance(found, Launch)
        assert found.pinned is pinned
        assert set(map(frozenset, arena.cores.values())) == ({frozenset({1})} if pinned else set())


def test_short_blocks_share_the_conditions_of_their_stretch() -> None:
    """Counters of a few hundredths of a second tell nothing, so they are read around as many pairs as take longer."""
    short, long = Arena(tpot_s=lambda name, launch: 0.005), Arena(tpot_s=lambda name, launch: 0.1)
    found = launch(short, LaunchPlan(6, 10))
    assert all({block.arm for block in pair} == {"baseline", "candidate"} for pair in found.pairs)
    launch(long, LaunchPlan(6, 10))
    assert (short.probed, long.probed) == (4, 20)


def test_a_gpu_that_clocked_down_is_woken_by_the_arm_that_goes_first() -> None:
    """Once after each reading of conditions, by a few steps of which nothing is kept."""

    def blocks(arena: Arena) -> list[int]:
        launch(arena, LaunchPlan(WAKE_STEPS, 6))
        return [one.steps for one in arena.workers[0].asked + arena.workers[1].asked if isinstance(one, wire.Block)]

    usual, idle = (Arena(tpot_s=lambda name, launch: 0.005, idle=one) for one in (False, True))
    assert sorted(blocks(idle)) == sorted([*blocks(usual), *[WAKE_STEPS] * 2])
    assert (idle.probed, usual.probed) == (2, 2)
    assert len(launch(Arena(idle=True)).tpot_s("baseline")) == PLAN.pairs


@pytest.mark.parametrize("layout", [ON_CPU, BlockLayout()])
@pytest.mark.parametrize("name", ["baseline", "candidate"])
def test_a_clock_that_is_slow_inside_is_seen_outside(name: str, layout: BlockLayout) -> None:
    """Where blocks go on, beside the other arm's; where they rewind, beside shorter ones of its own."""
    for speed, kind in ((0.8, InvalidError), (1.0, Launch)):
        arena = Arena(tpot_s=lambda name, launch: 0.01, clock_speed={name: speed})
        tools = replace(arena.tools, layout=layout)
        with ready(ARMS, tools) as running:
            found = measure(running, LaunchPlan(7, 12), tools, session=0, start_s=1.0)["candidate"]
        assert isinstance(found, kind)
        assert not isinstance(found, InvalidError) or f"a block of the {name} takes" in found.found


def test_an_arm_that_works_in_the_others_turn_is_invalid() -> None:
    """CPU time of its process is read around the other's blocks; models of one process have no turns of their own."""
    for arms, kind in ((ARMS, InvalidError), (SEVERAL[:2], Launch)):
        arena = Arena()
        arena.cpu_s = lambda pid, clock=arena.clock: 0.3 * clock() if pid == 2 else 0.0  # type: ignore[misc]
        with ready(arms, arena.tools) as running:
            found = measure(running, PLAN, arena.tools, session=0, start_s=1.0)[arms[1].name]
        assert isinstance(found, kind)
        assert not isinstance(found, InvalidError) or "s of CPU time in" in found.found


def test_an_arm_that_touches_another_process_is_invalid() -> None:
    """A worker was stopped by a signal, or its threads were moved or slowed after they were pinned."""

    def found(arena: Arena, niceness: int = 0) -> Launch | PerfError:
        readings = itertools.count()
        arena.used_s = lambda pid: {10 * pid: next(readings)}
        with ready(ARMS, arena.tools) as running:
            tools = arena.tools
            plan, _ = warm_up(running, tools, 64, PLAN, lambda pair_s: 1)
            arena.niceness = niceness
            return measure(running, plan, tools, session=0, start_s=1.0)["candidate"]

    assert isinstance(found(Arena()), Launch)
    stopped, slowed = found(Arena(stopped=frozenset({"baseline"}))), found(Arena(), niceness=19)
    assert isinstance(stopped, InvalidError)
    assert stopped.found.startswith("the process of baseline was stopped by a signal")
    assert isinstance(slowed, InvalidError)
    assert "another priority" in slowed.found
    preferred = found(Arena(preferred={20: -20}))
    assert isinstance(preferred, InvalidError)
    assert preferred.found == "the arms' threads have different priorities"
    left = found(Arena(strays=["python"]))
    assert isinstance(left, InvalidError)
    assert left.found == "an arm left a process behind that is no longer its own: python"


def test_pairs_of_a_contended_stretch_are_discarded_together() -> None:
    """Three pairs of 60 ms are read as one: all go, and the launch ends with as many pairs as it should."""
    arena = Arena(tpot_s=lambda name, launch: 0.005, contended=lambda stretch: stretch == 1)
    found = launch(arena, LaunchPlan(6, 10))
    assert (len(found.pairs), len(found.discarded)) == (10, 3)
    assert {block.faults for pair in found.discarded for block in pair} == {("steal",)}
    assert found.seconds == pytest.approx(13 * 2 * 6 * 0.005)


def test_candidates_of_one_room_share_a_process_and_keep_their_own_times() -> None:
    """Each candidate has a launch of its own, with blocks of the baseline that no other candidate was paired with."""
    arena = Arena(tpot_s=lambda name, launch: {"2:y": 0.03}.get(name, 0.02), protocols={"baseline": UNCHECKED})
    with ready(SEVERAL, arena.tools) as running:
        found = measure(running, LaunchPlan(6, 8), arena.tools, session=0, start_s=1.0)
    assert len(arena.workers) == 2
    for name, tpot_s in (("1:x", 0.03), ("2:y", 0.03)):
        one = found[name]
        assert isinstance(one, Launch)
        assert one.tpot_s("candidate") == pytest.approx([tpot_s] * 8)
        assert set(one.tpot_s("baseline")) == {0.02}
        assert len(one.pairs) == 8
    # One shorter block before each that counts, and 0.3 s of both arms before a candidate's first.
    timed = [name for _, name in arena.blocks]
    assert Counter(timed) == {"baseline": 2 * 17, "1:x": 17, "2:y": 17}
    assert [len(set(names)) for names in (timed[: len(timed) // 2], timed[len(timed) // 2 :])] == [2, 2]


def test_a_candidate_that_fails_as_it_warms_up_is_no_fault_of_the_others() -> None:
    """The baseline's own failure, and that of the last candidate, end the launch."""
    broken: PerfError = InvalidError("mlx.core.argmax was replaced")
    arms = (arm("baseline"), arm("1:x"), arm("2:y"))
    arena = Arena(raises={("1:x", "block"): broken})
    with ready(arms, arena.tools) as running:
        plan, _ = warm_up(running, arena.tools, 64, None, lambda pair_s: 3)
        found = measure(running, plan, arena.tools, session=0, start_s=1.0)
    assert running.failures == {"1:x": broken}
    assert running.candidates == ("2:y",)
    assert isinstance(found["2:y"], Launch)
    for failing in ({("baseline", "block"): broken}, {("1:x", "block"): broken, ("2:y", "block"): broken}):
        arena = Arena(raises=failing)
        with ready(arms, arena.tools) as running, pytest.raises(InvalidError, match="argmax"):
            warm_up(running, arena.tools, 64, None, lambda pair_s: 3)


@pytest.mark.parametrize("when", ["load", "prepare", "block"])
def test_a_candidate_that_fails_leaves_the_others_measured(when: str) -> None:
    """One fusion that raises costs the others nothing."""
    arena = Arena(raises={("1:x", when): InvalidError("NaN")})
    with ready(SEVERAL, arena.tools) as running:
        found = measure(running, LaunchPlan(6, 3), arena.tools, session=0, start_s=1.0)
        failed = running.failures.get("1:x") or found["1:x"]
    assert isinstance(failed, InvalidError)
    assert isinstance(found["2:y"], Launch)


def test_a_baseline_that_fails_ends_the_launch() -> None:
    """Nothing can be compared with it."""
    arena = Arena(raises={("baseline", "load"): OutOfMemoryError("none left")})
    with pytest.raises(OutOfMemoryError), ready(SEVERAL, arena.tools):
        pass


def test_outputs_may_differ_where_that_was_asked_for() -> None:
    """It is a caution then."""
    arena = Arena(tokens={"1:x": "tokens:2"})
    with ready(SEVERAL, arena.tools, replace(JOB, outputs_may_differ=True)) as running:
        assert running.cautions["1:x"][0].code == "outputs-differ"
        assert running.cautions["2:y"] == ()
    arena = Arena(tokens={"1:x": "tokens:2"}, protocols={"baseline": 4, "1:x": 4})
    with ready(SEVERAL, arena.tools) as running:
        assert isinstance(running.failures["1:x"], InvalidError)
        assert running.candidates == ("2:y",)


def test_candidates_are_measured_in_an_order_drawn_anew() -> None:
    """None is always the first after the others' blocks."""
    arena = Arena()
    with ready(SEVERAL, arena.tools) as running:
        measure(running, LaunchPlan(6, 12), arena.tools, session=0, start_s=1.0)
    firsts = [names for _, names in arena.blocks if names != "baseline"][::2]
    assert set(firsts) == {"1:x", "2:y"}


def test_a_candidate_that_works_while_another_is_timed_is_invalid() -> None:
    """It could slow the baseline of the other's pairs, which are left out: the other has the next launch."""
    arms = (arm("baseline"), arm("0:x"), arm("1:y"))

    def found(share: float) -> dict[str, Launch | PerfError]:
        arena = Arena()
        arena.cpu_s = lambda pid: 0.0
        with ready(arms, arena.tools) as running:
            pid = running.running.pids["1:y"]
            tools = replace(arena.tools, cpu_seconds=lambda one: share * arena.clock() if one == pid else 0.0)
            plan, _ = warm_up(running, tools, 64, PLAN, lambda pair_s: 1)
            return measure(running, plan, tools, session=0, start_s=1.0)

    assert all(isinstance(one, Launch) for one in found(0.0).values())
    assert found(0.9).keys() == {"1:y"}
    busy = found(0.9)["1:y"]
    assert isinstance(busy, InvalidError)
    assert re.search("the candidate used .* in which the candidate 0:x was timed", busy.found)


def test_a_change_of_what_was_compiled_for_the_baseline_spoils_the_launch() -> None:
    """No arm but the baseline's own has anything to do there."""
    arena = Arena()
    with ready(ARMS, arena.tools) as running:
        tools = replace(arena.tools, compiled_changed=lambda: ["liba.so"])
        plan, _ = warm_up(running, tools, 64, PLAN, lambda pair_s: 1)
        found = measure(running, plan, tools, session=0, start_s=1.0)["candidate"]
    assert isinstance(found, InvalidError)
    assert found.found == "what MLX had compiled for the baseline was changed: liba.so"


def test_blocks_that_decode_other_tokens_are_other_work() -> None:
    """In most pairs, unless that is asked for; a few texts may part where rounding decides."""
    chance = random.Random(2)

    def found(share: float, *, may_differ: bool = False) -> Launch | PerfError:
        arena = Arena(block_token=lambda name: 8 if name == "candidate" and chance.random() < share else 7)
        job = replace(JOB, outputs_may_differ=may_differ)
        with ready(ARMS, arena.tools, job) as running:
            return measure(running, LaunchPlan(7, 20), arena.tools, session=0, start_s=1.0)["candidate"]

    assert isinstance(found(0.0), Launch)
    assert isinstance(found(0.1), Launch)
    assert isinstance(found(1.0, may_differ=True), Launch)
    other = found(1.0)
    assert isinstance(other, InvalidError)
    assert other.found == "the arms decode different greedy tokens in 20 of 20 pairs of blocks"
