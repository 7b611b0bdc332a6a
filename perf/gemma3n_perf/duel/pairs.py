"""Pairs of blocks: one of the baseline and one of the candidate, in turns, with conditions read around them."""

from dataclasses import dataclass, field

from gemma3n_perf.decode.decoder import OWN_TEXT, WAKE_STEPS
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.outside_clock import OutsideClock
from gemma3n_perf.duel.spot_checks import TEXTS, SpotChecks
from gemma3n_perf.duel.startup import Prepared
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.hardware.types import Conditions, Fault

NS = 9
"""Times are whole nanoseconds, so that a record holds what was judged."""

WARM_AGAIN_S = 0.3
"""How long both arms of a pair decode before it counts, where the candidate rested while others were timed. On an H200,
blocks of 17 ms were twice as slow at first, and three of three duels of identical code lost 10 to 13 %."""

_SHORT_BLOCK_S = 0.1
_STRETCH_S = 0.15
"""CPU time is counted in ticks of 10 ms: conditions of less than this tell nothing of it."""


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


@dataclass(slots=True)
class Growing:
    """One candidate's part of a launch, as it grows. ``latest`` is the arm that was timed last, ``agreed`` says of each
    pair whether both blocks decoded the same tokens."""

    name: str
    kept: list[tuple[Block, Block]] = field(default_factory=list)
    discarded: list[tuple[Block, Block]] = field(default_factory=list)
    seconds: float = 0.0
    latest: str = ""
    agreed: list[bool] = field(default_factory=list)
    outside: OutsideClock = field(default_factory=OutsideClock)


class Positions:
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

    def rewind(self) -> None:
        """Have the next blocks rewind."""
        self._at = 0


def warm_again(ready: Prepared, candidate: str, steps: int, tools: Tools, positions: Positions) -> None:
    """Decode a few blocks of the baseline and ``candidate`` that do not count, until neither is slow from resting."""
    spent_s = 0.0
    while spent_s < WARM_AGAIN_S:
        goes_on = positions.go_on(candidate, steps)
        for name in tools.rng.sample((ARMS[0], candidate), 2):
            spent_s += ready.time(name, steps, tools.waits.block, continued=goes_on).seconds


def stretch(
    ready: Prepared,
    candidate: Growing,
    steps: int,
    most: int,
    tools: Tools,
    found: list[Fault],
    positions: Positions,
    checks: SpotChecks,
) -> list[tuple[Block, Block]]:
    """Pairs of a block of the baseline and one of the candidate, in an order drawn anew for each.

    Conditions are read around each block. Where blocks are short, counters say nothing of one, so they are read around
    as many pairs, ``most`` or fewer, as take long enough: those are kept or discarded together.
    """
    names, layout = {ARMS[0]: ARMS[0], ARMS[1]: candidate.name}, ready.running.layout
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

    def timed(arm: str, count: int, *, goes_on: bool = False, text: int = OWN_TEXT) -> wire.Timed:
        other, outside = ARMS[arm == ARMS[0]], candidate.outside
        own, resting = (ready.running.pids[names[one]] for one in (arm, other))
        apart = own != resting
        used, began = tools.cpu_seconds(resting) if apart else None, tools.clock()
        one = ready.time(names[arm], count, tools.waits.block, continued=goes_on, text=text)
        elapsed, by_now = tools.clock() - began, tools.cpu_seconds(resting) if apart else None
        kept = outside.short if count < steps else outside.blocks
        kept = outside.rewound if ready.can_continue and not goes_on else kept
        # What is judged is the time of a token, which must account for the block.
        ends = layout.drop + layout.tail
        kept[arm].append((elapsed, one.tpot_s * count if ready.can_continue else one.seconds))
        if ends < count and kept is outside.blocks and not ready.can_continue:
            outside.uncounted[arm].append(1 - one.tpot_s * (count - ends) / one.seconds)
        if used is not None and by_now is not None:
            outside.add_idle(other, elapsed, by_now - used, after=candidate.latest != arm)
        candidate.latest = arm
        return one

    def opened() -> int:
        idle = bool(tools.probe.start())
        # Where every block rewinds, short ones tell what that takes.
        return len(ARMS) if not ready.can_continue and steps > WAKE_STEPS else int(idle)

    wakes = opened()
    while True:
        goes_on = positions.go_on(candidate.name, steps)
        text = OWN_TEXT if goes_on else tools.rng.randrange(TEXTS)
        decoded: list[tuple[int, ...]] = []
        for arm in tools.rng.sample(ARMS, 2):
            if wakes and not goes_on:
                timed(arm, min(WAKE_STEPS, steps))
            wakes = max(0, wakes - 1)
            pending.append((arm, timed(arm, steps, goes_on=goes_on, text=text)))
            decoded.append(pending[-1][1].tokens)
            if len(pending) == 1 and not blocks and pending[0][1].seconds >= _SHORT_BLOCK_S:
                close()
                wakes = opened()
        if all(decoded):
            candidate.agreed.append(decoded[0] == decoded[1])
        if checks.paired(decoded[0] == decoded[1], goes_on, tools):
            positions.rewind()
            candidate.latest = ""
        if blocks or len(pending) >= 2 * most or sum(one.seconds for _, one in pending) >= _STRETCH_S:
            close()
            return list(zip(blocks[::2], blocks[1::2], strict=True))
