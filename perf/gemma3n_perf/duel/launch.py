"""One launch: fresh processes, loaded, warmed up, and measured in alternating blocks, one arm at a time.

What disturbs the machine must disturb both arms alike. So blocks are short, their order is drawn anew for every pair,
and a pair of which one block was contended is discarded whole. Several candidates may go through one launch: each has
blocks of the baseline to itself.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from gemma3n_perf.decode.decoder import WAKE_STEPS
from gemma3n_perf.decode.types import Run
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.outside_clock import OutsideClock
from gemma3n_perf.duel.startup import Prepared
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.errors import BadConditionsError, PerfError
from gemma3n_perf.hardware.types import Conditions, Fault

WARM_TOKENS, WARM_S, LEAST_ROUNDS = 10, 0.5, 3
"""How much each arm decodes before it counts: so many tokens or seconds, whichever is less, in three blocks or more."""

NS = 9
"""Times are whole nanoseconds, so that a record holds what was judged."""

_SHORT_BLOCK_S = 0.1
_STRETCH_S = 0.15
"""CPU time is counted in ticks of 10 ms: conditions of less than this tell nothing of it."""
Pairs = Callable[[float, float], int]
"""From seconds of a pair of blocks and seconds of starting a launch to the pairs of a launch."""


@dataclass(frozen=True, slots=True)
class Block:
    """A few tokens by one arm: ``tpot_s`` seconds per token that counts, ``seconds`` of all its steps.

    ``step_s`` are seconds of each step that counts, where there are several and the arm's worker reports them.
    """

    arm: str
    tpot_s: float
    seconds: float
    conditions: Conditions
    faults: tuple[str, ...] = ()
    step_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """How a workload is divided, the same in every launch: ``steps`` of a block, ``pairs`` of blocks."""

    steps: int
    pairs: int


@dataclass(frozen=True, slots=True)
class CandidateRun:
    """A run of the candidate, with the peak of memory until then and the KV cache after it, bytes."""

    run: Run
    peak_bytes: int
    kv_bytes: int


@dataclass(frozen=True, slots=True)
class Prefills:
    """What a launch tells beside decode. ``ttft_s`` are seconds to the first token of baseline and candidate, in pairs,
    none where ``fault`` says why a prefill means nothing here, or where the machine was disturbed.

    ``peak_bytes`` and ``kv_bytes`` are of both arms' processes for this workload, peaks only where they are two.
    ``runs`` are whole decodes of the candidate, where they were requested: of as many steps as the workload generates,
    from the blocks' position, as a session of ``pytest perf/`` takes them; one counts unless all were disturbed.
    """

    ttft_s: tuple[tuple[float, float], ...]
    fault: str = ""
    peak_bytes: tuple[int, int] | None = None
    kv_bytes: tuple[int, int] | None = None
    runs: tuple[CandidateRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Launch:
    """What one launch measured. ``pairs`` hold two blocks each, in the order they ran; ``seconds`` is measuring time.

    ``started_first`` is the arm whose process was started first.
    ``start_s`` is how long starting, loading and warming up took.
    ``discarded`` pairs were contended; their time is part of ``seconds``.
    ``pinned`` says that the threads of both processes were kept on the same cores.
    ``whole_s`` are seconds per token of one whole run of baseline and candidate; None where a worker knows none, or
    where the machine was disturbed. ``prefills`` is None where a worker times none.
    ``alone_s`` are seconds per token of the unfused model in a process of its own, where baseline and candidate share
    one.
    """

    session: int
    started_first: str
    start_s: float
    seconds: float
    steps: int
    pairs: tuple[tuple[Block, Block], ...]
    discarded: tuple[tuple[Block, Block], ...] = ()
    pinned: bool = False
    whole_s: tuple[float, float] | None = None
    prefills: Prefills | None = None
    alone_s: float | None = None

    def tpot_s(self, arm: str) -> tuple[float, ...]:
        """Seconds per token of one arm's blocks that count."""
        return tuple(block.tpot_s for pair in self.pairs for block in pair if block.arm == arm)

    def step_s(self, arm: str) -> tuple[tuple[float, ...], ...]:
        """Seconds of each step of one arm's blocks that count; () where a worker did not report them."""
        steps = tuple(block.step_s for pair in self.pairs for block in pair if block.arm == arm)
        return steps if all(block.step_s for pair in self.pairs for block in pair) else ()


def warm_up(
    ready: Prepared, tools: Tools, generate: int, plan: LaunchPlan | None, pairs: Callable[[float], int]
) -> tuple[LaunchPlan, bool]:
    """Decode a few blocks of each arm that do not count and put the arms' threads on the same cores.

    Returns the plan, made where none is given, and whether threads are pinned. ``pairs`` is the number of pairs of a
    launch by the seconds of one; raises what it raises where the budget is too short.
    """
    layout = ready.running.layout
    steps = plan.steps if plan else min(generate, layout.tokens + layout.drop + layout.tail)
    rounds, pinned = LEAST_ROUNDS, False
    timed: list[list[float]] = []
    positions = _Positions(ready)
    tools.placement.watch(ready.running.pids)
    while len(timed) < rounds:
        if len(timed) == rounds // 2:
            pinned = tools.placement.pin()
        goes_on = positions.go_on("", steps)
        timed.append([ready.time(name, steps, tools.waits.start, continued=goes_on).tpot_s for name in ready.sides])
        if len(timed) == 1:
            tokens = min(WARM_TOKENS, WARM_S / max(timed[0]))
            rounds = max(LEAST_ROUNDS, math.ceil(tokens / steps))
    if plan:
        return plan, pinned
    tpots = [statistics.median(own[rounds // 2 :]) for own in zip(*timed, strict=True)]
    steps = min(generate, layout.drop + layout.tail + max(layout.tokens, math.ceil(layout.least_s / min(tpots))))
    return LaunchPlan(steps, pairs(steps * (tpots[0] + max(tpots[1:])))), pinned


def measure(
    ready: Prepared, plan: LaunchPlan, tools: Tools, *, session: int, start_s: float, pinned: bool = False
) -> dict[str, Launch | PerfError]:
    """Take ``plan.pairs`` pairs that count of each candidate, in turn. Returns a launch by candidate, or its failure.

    Raises BadConditionsError where too many pairs must be discarded, and what ends a process.
    """
    states = {name: _Candidate(name) for name in ready.candidates}
    positions = _Positions(ready)
    failures: dict[str, Launch | PerfError] = {}
    found: list[Fault] = []
    allowed = tools.retry_policy.most_discards(plan.pairs * len(states))
    pauses, discarded = tools.retry_policy.pauses(), 0
    while unfinished := [one for one in states.values() if len(one.kept) < plan.pairs]:
        for one in tools.rng.sample(unfinished, len(unfinished)):
            try:
                pairs = _stretch(ready, one, plan.steps, plan.pairs - len(one.kept), tools, found, positions)
            except PerfError as error:
                if len(states) == 1:
                    raise
                failures[one.name] = error
                del states[one.name]
                continue
            one.seconds += sum(block.seconds for pair in pairs for block in pair)
            if not any(block.faults for pair in pairs for block in pair):
                one.kept += pairs
                pauses = tools.retry_policy.pauses()
                continue
            one.discarded += pairs
            discarded += len(pairs)
            if discarded > allowed:
                raise _given_up(discarded, found)
            tools.sleep(next(pauses))
    first = ready.running.started_first
    # Workers of two commits need not do the same beside decoding.
    scripts = {arm.name: arm.argv[-1:] for arm in ready.running.arms}
    launches: dict[str, Launch | PerfError] = {
        name: (one.outside.fault() if scripts[name] == scripts[ARMS[0]] else None)
        or Launch(session, first, start_s, one.seconds, plan.steps, tuple(one.kept), tuple(one.discarded), pinned)
        for name, one in states.items()
    }
    return launches | failures


@dataclass(slots=True)
class _Candidate:
    """One candidate's part of a launch, as it grows."""

    name: str
    kept: list[tuple[Block, Block]] = field(default_factory=list)
    discarded: list[tuple[Block, Block]] = field(default_factory=list)
    seconds: float = 0.0
    outside: OutsideClock = field(default_factory=OutsideClock)


class _Positions:
    """Where blocks begin: where those before them ended, in both arms alike, as long as the workload's tokens last.

    So all that a step costs is inside some block's clock, as it is while a text is generated.
    """

    def __init__(self, ready: Prepared) -> None:
        self._may = ready.can_continue
        self._tokens = ready.sides[ARMS[0]].loaded.generated_tokens
        self._at, self._candidate = 0, ""

    def go_on(self, candidate: str, steps: int) -> bool:
        """Whether the next blocks of the baseline and ``candidate`` go on; else they rewind."""
        # One more step is built than is timed.
        on = self._may and candidate == self._candidate and 0 < self._at < self._tokens - steps
        self._at, self._candidate = steps + (self._at if on else 0), candidate
        return on


def _stretch(
    ready: Prepared,
    candidate: _Candidate,
    steps: int,
    most: int,
    tools: Tools,
    found: list[Fault],
    positions: _Positions,
) -> list[tuple[Block, Block]]:
    """Pairs of a block of the baseline and one of the candidate, in an order drawn anew for each.

    Conditions are read around each block. Where blocks are short, counters say nothing of one, so they are read around
    as many pairs, ``most`` or fewer, as take long enough: those are kept or discarded together.
    """
    names = {ARMS[0]: ARMS[0], ARMS[1]: candidate.name}
    pending: list[tuple[str, wire.Timed]] = []
    blocks: list[Block] = []

    def close() -> None:
        conditions = tools.probe.stop()
        faults = tools.faults_of(conditions)
        found.extend(faults)
        codes = tuple(fault.code for fault in faults)
        blocks.extend(
            Block(
                arm,
                round(one.tpot_s, NS),
                round(one.seconds, NS),
                conditions,
                codes,
                tuple(round(step_s, NS) for step_s in one.step_s),
            )
            for arm, one in pending
        )
        pending.clear()

    idle = tools.probe.start()
    while True:
        goes_on = positions.go_on(candidate.name, steps)
        for arm in tools.rng.sample(ARMS, 2):
            if idle and not goes_on:
                ready.time(names[arm], min(WAKE_STEPS, steps), tools.waits.block)
            idle = False
            began = tools.clock()
            pending.append((arm, ready.time(names[arm], steps, tools.waits.block, continued=goes_on)))
            if goes_on:
                candidate.outside.add(arm, tools.clock() - began, pending[-1][1].seconds)
            if len(pending) == 1 and not blocks and pending[0][1].seconds >= _SHORT_BLOCK_S:
                close()
                idle = tools.probe.start()
        if blocks or len(pending) >= 2 * most or sum(one.seconds for _, one in pending) >= _STRETCH_S:
            close()
            return list(zip(blocks[::2], blocks[1::2], strict=True))


def _given_up(discarded: int, found: list[Fault]) -> BadConditionsError:
    counts = Counter(fault.code for fault in found)
    worst = next(fault for fault in reversed(found) if fault.code == counts.most_common(1)[0][0])
    return BadConditionsError(
        f"{discarded} pairs of blocks of one launch were discarded "
        f"({', '.join(f'{code} x{count}' for code, count in counts.most_common())}); last: {worst.found}",
        expected="a machine fit to measure",
        remedy=worst.remedy,
    )
