from collections.abc import Callable
from dataclasses import replace

import pytest

from gemma3n_perf.measure import worker as wire
from gemma3n_perf.measure.launch import Launch, measure
from gemma3n_perf.measure.muster import started
from gemma3n_perf.measure.pacing import AT_ONCE, Pace, warm_up
from gemma3n_perf.measure.tools import BUILT, HOST_BOUND, Cut, Job
from tests.measure.arena import ARMS, Arena, arm

JOB = Job("nano/text/pp40-tg64", "nano", "/root")
DROP, TAIL = Cut().drop, Cut().tail
ALONE = HOST_BOUND.tokens + HOST_BOUND.drop
SPAN = Cut().tokens + DROP + TAIL
FIELD = (arm("baseline"), arm("1:x"), arm("2:y"))


def one_pair(pair_s: float, start_s: float) -> int:
    """A launch of one pair."""
    return 1


def waiting(left: float) -> Callable[[float], tuple[float, ...]]:
    """Return steps of a block whose last one is left that share of a step to wait for."""
    return lambda tpot: (2 * tpot, *[tpot] * (SPAN - 2), left * tpot)


def test_blocks_are_long_enough_to_be_timed_and_stay_within_the_shape() -> None:
    """At least five tokens that count and three hundredths of a second, never more steps than the workload has."""
    asked: list[tuple[float, float]] = []

    def pairs(pair_s: float, start_s: float) -> int:
        asked.append((pair_s, start_s))
        return 9

    for tpot_s, generate, steps in ((0.02, 64, 7), (0.004, 64, DROP + 8 + TAIL), (0.0004, 64, 64), (1.5, 4, 4)):
        arena = Arena(tpot_s=lambda name, launch, t=tpot_s: t)  # type: ignore[misc]
        with started(ARMS, JOB, arena.tools) as running:
            paces, _ = warm_up(running, arena.tools, generate, {}, arena.clock(), pairs)
        assert paces == {"candidate": Pace(steps, 9)}
        assert asked[-1][0] == pytest.approx(2 * steps * tpot_s)


def test_a_pace_once_settled_stays() -> None:
    """Launches of one duel are alike."""
    arena, settled = Arena(), {"candidate": Pace(9, 20)}
    with started(ARMS, JOB, arena.tools) as running:
        assert warm_up(running, arena.tools, 64, settled, 0.0, one_pair)[0] == settled


@pytest.mark.parametrize(
    ("protocol", "block"), [(wire.PROTOCOL, wire.Block(1, 0, 0, built=True)), (3, wire.Block(3, 0, 0))]
)
def test_on_a_cpu_a_block_is_one_whole_token(protocol: int, block: wire.Block) -> None:
    """There dispatch takes as long as computing, so nothing is left out; beside an older commit, blocks are longer."""
    arena = Arena(tpot_s=lambda name, launch: 0.02, protocols={"baseline": protocol})
    tools = replace(arena.tools, cut=BUILT)
    with started(ARMS, JOB, tools) as running:
        paces, _ = warm_up(running, tools, 64, {}, 0.0, one_pair)
        measure(running, paces, tools, session=0, start_s=1.0)
    blocks = {one for worker in arena.workers for one in worker.asked if isinstance(one, wire.Block)}
    assert blocks == {block}


@pytest.mark.parametrize(
    ("left", "protocol", "silent", "steps"),
    [
        (AT_ONCE / 2, wire.PROTOCOL, frozenset(), ALONE),
        (AT_ONCE * 2, wire.PROTOCOL, frozenset(), SPAN),
        (AT_ONCE / 2, 3, frozenset(), SPAN),
        (AT_ONCE / 2, wire.PROTOCOL, frozenset({"candidate"}), SPAN),
    ],
    ids=["at once", "waited for", "an older commit", "steps not told"],
)
def test_where_only_the_host_is_waited_for_blocks_are_shorter_and_built(
    left: float, protocol: int, silent: frozenset[str], steps: int
) -> None:
    """The last token of a block tells: nothing else is done while it is computed."""
    arena = Arena(steps_s=waiting(left), protocols={"baseline": protocol}, silent=silent)
    with started(ARMS, JOB, arena.tools) as running:
        paces, _ = warm_up(running, arena.tools, 64, {}, 0.0, one_pair)
        arena.blocks.clear()
        found = measure(running, paces, arena.tools, session=0, start_s=1.0)["candidate"]
    assert isinstance(found, Launch)
    assert found.steps == steps
    asked = [one for worker in arena.workers for one in worker.asked if isinstance(one, wire.Block)][-1]
    alone = steps == ALONE
    assert (asked.built, asked.drop, asked.tail) == (alone, DROP, 0 if alone else TAIL)


def test_each_candidate_is_cut_as_it_and_the_baseline_can_be() -> None:
    """One that keeps the device busy is timed in long blocks, beside blocks of the baseline that are as long."""
    arena = Arena()
    with started(FIELD, JOB, arena.tools) as running:
        names = {id(worker): name for name, worker in running.workers.items()}
        for worker in arena.workers:
            left = 0.6 if names[id(worker)] == "2:y" else 0.01
            worker.steps_s = waiting(left)
        paces, _ = warm_up(running, arena.tools, 64, {}, 0.0, one_pair)
        found = measure(running, paces, arena.tools, session=0, start_s=1.0)
    assert paces["1:x"] == Pace(ALONE, 1, HOST_BOUND)
    assert paces["2:y"] == Pace(SPAN, 1)
    assert {name: one.steps for name, one in found.items() if isinstance(one, Launch)} == {"1:x": ALONE, "2:y": SPAN}


def test_a_launch_takes_as_long_whatever_its_blocks() -> None:
    """How many pairs there are is asked for each candidate, with what its own pair takes."""
    asked: list[float] = []

    def pairs(pair_s: float, start_s: float) -> int:
        asked.append(pair_s)
        return 1

    arena = Arena(tpot_s=lambda name, launch: 0.03 if name == "2:y" else 0.02)
    with started(FIELD, JOB, arena.tools) as running:
        warm_up(running, arena.tools, 64, {}, 0.0, pairs)
    assert asked == pytest.approx([SPAN * 0.04, SPAN * 0.05])
