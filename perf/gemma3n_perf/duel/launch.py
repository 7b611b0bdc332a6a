"""One launch: fresh processes, loaded, warmed up, and measured in alternating blocks, one arm at a time.

Opinion: what disturbs the machine must disturb both arms alike. So blocks are short, their order is drawn anew for
every pair, and a pair of which one block was contended is discarded whole. Several candidates may go through one
launch: each meets blocks of the baseline that are its own.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gemma3n_perf.duel import worker as wire
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.startup import Started, expect
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.errors import BadConditionsError, PerfError
from gemma3n_perf.hardware.types import Conditions, Fault

WARM_TOKENS, WARM_S, LEAST_ROUNDS = 20, 0.5, 3
"""How much each arm decodes before it counts: so many tokens or seconds, whichever is less, in three blocks or more."""

_SHORT_BLOCK_S = 0.1
_STRETCH_S = 0.15
"""CPU time is counted in ticks of 10 ms: conditions of less than this tell nothing of it."""
Pairs = Callable[[float, float], int]
"""From seconds of a pair of blocks and seconds of starting a launch to the pairs of a launch."""


@dataclass(frozen=True, slots=True)
class Block:
    """A few tokens by one arm: ``tpot_s`` seconds per token that counts, ``seconds`` of all its steps.

    ``step_s`` are seconds of each step that counts, where there are several and the arm's worker told.
    """

    arm: str
    tpot_s: float
    seconds: float
    conditions: Conditions
    faults: tuple[str, ...] = ()
    step_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How a workload is cut up, the same in every launch: ``steps`` of a block, ``pairs`` of blocks."""

    steps: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Launch:
    """What one launch measured. ``pairs`` hold two blocks each, in the order they ran; ``seconds`` is measuring time.

    ``started_first`` is the arm whose process was started first, ``start_s`` how long starting, loading and warming up
    took. ``discarded`` pairs were contended; their time is part of ``seconds``. ``held`` says that the threads of both
    processes were held on the same cores.
    """

    session: int
    started_first: str
    start_s: float
    seconds: float
    steps: int
    pairs: tuple[tuple[Block, Block], ...]
    discarded: tuple[tuple[Block, Block], ...] = ()
    held: bool = False

    def tpot_s(self, arm: str) -> tuple[float, ...]:
        """Seconds per token of one arm's blocks that count."""
        return tuple(block.tpot_s for pair in self.pairs for block in pair if block.arm == arm)

    def step_s(self, arm: str) -> tuple[tuple[float, ...], ...]:
        """Seconds of each step of one arm's blocks that count; nothing where a worker did not tell."""
        told = tuple(block.step_s for pair in self.pairs for block in pair if block.arm == arm)
        return told if all(block.step_s for pair in self.pairs for block in pair) else ()


def warm_up(
    running: Started, tools: Tools, generate: int, plan: LaunchPlan | None, begun: float, pairs: Pairs
) -> tuple[LaunchPlan, bool]:
    """Decode a few blocks of each arm that do not count, put the arms' threads on the same cores, and settle the pace
    where none is given. Returns it, and whether threads are held.

    Raises what ``pairs`` raises where the budget is too short.
    """
    cut = running.cut
    steps = plan.steps if plan else min(generate, cut.tokens + cut.drop + cut.tail)
    rounds, held = LEAST_ROUNDS, False
    timed: list[list[float]] = []
    tools.placement.watch(running.pids)
    while len(timed) < rounds:
        if len(timed) == rounds // 2:
            held = tools.placement.hold()
        timed.append([_time(running, name, steps, tools.waits.block * 10).tpot_s for name in running.sides])
        if len(timed) == 1:
            tokens = min(WARM_TOKENS, WARM_S / max(timed[0]))
            rounds = max(LEAST_ROUNDS, math.ceil(tokens / steps))
    if plan:
        return plan, held
    tpots = [statistics.median(own[rounds // 2 :]) for own in zip(*timed, strict=True)]
    steps = min(generate, cut.drop + cut.tail + max(cut.tokens, math.ceil(cut.least_s / min(tpots))))
    pair_s = steps * (tpots[0] + max(tpots[1:]))
    return LaunchPlan(steps, pairs(pair_s, tools.clock() - begun)), held


def measure(
    running: Started, plan: LaunchPlan, tools: Tools, *, session: int, start_s: float, held: bool = False
) -> dict[str, Launch | PerfError]:
    """Take ``pace.pairs`` pairs that count of each candidate, in turn. Returns a launch by candidate, or its failure.

    Raises BadConditionsError where too many pairs must be discarded, and what ends a process.
    """
    lanes = {name: _Lane(name, plan) for name in running.candidates}
    failures: dict[str, Launch | PerfError] = {}
    found: list[Fault] = []
    allowed = tools.retry_policy.most_discards(plan.pairs * len(lanes))
    pauses, discarded = tools.retry_policy.pauses(), 0
    while open_lanes := [lane for lane in lanes.values() if len(lane.kept) < plan.pairs]:
        for lane in tools.rng.sample(open_lanes, len(open_lanes)):
            try:
                pairs = _stretch(running, lane.name, plan.steps, plan.pairs - len(lane.kept), tools, found)
            except PerfError as error:
                if len(lanes) == 1:
                    raise
                failures[lane.name] = error
                del lanes[lane.name]
                continue
            lane.seconds += sum(block.seconds for pair in pairs for block in pair)
            if not any(block.faults for pair in pairs for block in pair):
                lane.kept += pairs
                pauses = tools.retry_policy.pauses()
                continue
            lane.discarded += pairs
            discarded += len(pairs)
            if discarded > allowed:
                raise _given_up(discarded, found)
            tools.sleep(next(pauses))
    launches: dict[str, Launch | PerfError] = {
        name: Launch(
            session,
            running.started_first,
            start_s,
            lane.seconds,
            plan.steps,
            tuple(lane.kept),
            tuple(lane.discarded),
            held,
        )
        for name, lane in lanes.items()
    }
    return launches | failures


@dataclass(slots=True)
class _Lane:
    """One candidate's share of a launch, as it grows."""

    name: str
    plan: LaunchPlan
    kept: list[tuple[Block, Block]] = field(default_factory=list)
    discarded: list[tuple[Block, Block]] = field(default_factory=list)
    seconds: float = 0.0


def _stretch(
    running: Started, candidate: str, steps: int, most: int, tools: Tools, found: list[Fault]
) -> list[tuple[Block, Block]]:
    """Pairs of a block of the baseline and one of the candidate, in an order drawn anew for each.

    Conditions are read around each block; where blocks are short, counters tell nothing of one, so they are read around
    as many pairs, ``most`` or fewer, as take long enough: those stand or fall together.
    """
    names = {ARMS[0]: ARMS[0], ARMS[1]: candidate}
    timed: list[tuple[str, wire.Timed]] = []
    tools.probe.start()
    while True:
        first, second = tools.rng.sample(ARMS, 2)
        earlier = _time(running, names[first], steps, tools.waits.block)
        if not timed and earlier.seconds >= _SHORT_BLOCK_S:
            around_earlier = _conditions(tools, found)
            tools.probe.start()
            later = _time(running, names[second], steps, tools.waits.block)
            around_later = _conditions(tools, found)
            return [
                (
                    Block(first, earlier.tpot_s, earlier.seconds, *around_earlier, earlier.step_s),
                    Block(second, later.tpot_s, later.seconds, *around_later, later.step_s),
                )
            ]
        timed += [(first, earlier), (second, _time(running, names[second], steps, tools.waits.block))]
        if len(timed) >= 2 * most or sum(one.seconds for _, one in timed) >= _STRETCH_S:
            break
    around = _conditions(tools, found)
    blocks = [Block(arm, one.tpot_s, one.seconds, *around, one.step_s) for arm, one in timed]
    return list(zip(blocks[::2], blocks[1::2], strict=True))


def _conditions(tools: Tools, found: list[Fault]) -> tuple[Conditions, tuple[str, ...]]:
    """End the probe's interval: how it went, and the codes of its faults, which join ``found``."""
    conditions = tools.probe.stop()
    faults = tools.faults_of(conditions)
    found.extend(faults)
    return conditions, tuple(fault.code for fault in faults)


def _time(running: Started, name: str, steps: int, timeout_s: float) -> wire.Timed:
    worker, cut = running.workers[name], running.cut
    slot = running.slots.get(name, "")
    short = steps <= cut.drop + cut.tail
    worker.send(wire.Block(steps, cut.drop if steps > cut.drop else 0, 0 if short else cut.tail, slot, cut.built))
    return expect(worker, wire.Timed, timeout_s)


def _given_up(discarded: int, found: list[Fault]) -> BadConditionsError:
    counts = Counter(fault.code for fault in found)
    worst = next(fault for fault in reversed(found) if fault.code == counts.most_common(1)[0][0])
    return BadConditionsError(
        f"{discarded} pairs of blocks of one launch were discarded "
        f"({', '.join(f'{code} x{count}' for code, count in counts.most_common())}); last: {worst.found}",
        expected="a machine fit to measure",
        remedy=worst.remedy,
    )
