"""One launch: fresh processes, loaded, warmed up, and measured in alternating blocks, one arm at a time.

What disturbs the machine must disturb both arms alike. So blocks are short, their order is drawn anew for every pair,
and a pair of which one block was contended is discarded whole. Several candidates may go through one launch: each has
blocks of the baseline to itself.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gemma3n_perf.decode.types import Run
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS, same_texts
from gemma3n_perf.duel.beside import cpu_used, working
from gemma3n_perf.duel.pairs import Block, Growing, Positions, stretch, warm_again
from gemma3n_perf.duel.spot_checks import drawn
from gemma3n_perf.duel.startup import Prepared
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.errors import BadConditionsError, InvalidError, PerfError
from gemma3n_perf.hardware.types import Fault

WARM_TOKENS, WARM_S, LEAST_ROUNDS = 10, 0.5, 3
"""How much each arm decodes before it counts: so many tokens or seconds, whichever is less, in three blocks or more."""

Pairs = Callable[[float, float], int]
"""From seconds of a pair of blocks and seconds of starting a launch to the pairs of a launch."""


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
    where the machine was disturbed. ``whole_outside_s`` is the same of what lies outside the arms' own clocks, where
    the prompt is read. ``prefills`` is None where a worker times none.
    ``alone_s`` are seconds per token of the unfused model in a process of its own, where baseline and candidate share
    one; ``after_s`` in its own, when the candidates, on a GPU, had ended.
    ``hidden_share`` is how much more of a candidate's block than of the baseline's lies outside its own clock.
    ``parted_at`` is the step of the whole run at which a near tie parted the arms' texts, 0 where it was before any;
    None where they decode the same, or where that is not asked.
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
    whole_outside_s: tuple[float, float] | None = None
    prefills: Prefills | None = None
    alone_s: float | None = None
    after_s: float | None = None
    hidden_share: float | None = None
    parted_at: int | None = None

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

    Returns the plan, made where none is given, and whether threads are pinned. A candidate that fails is dropped from
    ``ready`` where others go on. ``pairs`` is the number of pairs of a launch by the seconds of one; raises what it
    raises where the budget is too short.
    """
    layout = ready.running.layout
    steps = plan.steps if plan else min(generate, layout.tokens + layout.drop + layout.tail)
    rounds, pinned = LEAST_ROUNDS, False
    timed: dict[str, list[float]] = {name: [] for name in ready.sides}
    positions = Positions(ready)
    tools.placement.watch(tuple(dict.fromkeys(ready.running.pids.values())))

    def warmed(name: str, *, continued: bool = False) -> wire.Timed | None:
        try:
            return ready.time(name, steps, tools.waits.start, continued=continued)
        except PerfError as error:
            ready.drop(name, error)
            return None

    for name in tuple(ready.sides):
        decoded, spent_s = 0, 0.0
        while decoded < layout.new_tokens and spent_s < layout.new_s and (one := warmed(name)):
            spent_s += one.seconds
            decoded += steps
    number = 0
    while number < rounds:
        if number == rounds // 2:
            pinned = tools.placement.pin()
        goes_on = positions.go_on("", steps)
        for name in tuple(ready.sides):
            if one := warmed(name, continued=goes_on):
                timed[name].append(one.tpot_s)
        if number == 0:
            tokens = min(WARM_TOKENS, WARM_S / max(timed[name][0] for name in ready.sides))
            rounds = max(LEAST_ROUNDS, math.ceil(tokens / steps))
        number += 1
    if plan:
        return plan, pinned
    tpots = [statistics.median(timed[name][rounds // 2 :]) for name in ready.sides]
    steps = min(generate, layout.drop + layout.tail + max(layout.tokens, math.ceil(layout.least_s / min(tpots))))
    return LaunchPlan(steps, pairs(steps * (tpots[0] + max(tpots[1:])))), pinned


def measure(
    ready: Prepared, plan: LaunchPlan, tools: Tools, *, session: int, start_s: float, pinned: bool = False
) -> dict[str, Launch | PerfError]:
    """Take ``plan.pairs`` pairs that count of each candidate. Returns a launch by candidate, or its failure.

    One candidate follows the other, in an order drawn anew, for blocks of an arm that rested are slow at first.
    Raises BadConditionsError where too many pairs must be discarded, and what ends a process.
    """
    states = {name: Growing(name) for name in ready.candidates}
    positions = Positions(ready)
    failures: dict[str, Launch | PerfError] = {}
    found: list[Fault] = []
    allowed = tools.retry_policy.most_discards(plan.pairs * len(states))
    discarded = 0
    busy: dict[str, Launch | PerfError] = {}
    for name in tools.rng.sample(ready.candidates, len(states)):
        others, began = cpu_used(ready, name, tools), tools.clock()
        one, pauses = states[name], tools.retry_policy.pauses()
        checks = drawn(ready, name, plan.steps, plan.pairs, tools)
        try:
            if len(ready.candidates) > 1:
                warm_again(ready, name, plan.steps, tools, positions)
            while len(one.kept) < plan.pairs:
                pairs = stretch(ready, one, plan.steps, plan.pairs - len(one.kept), tools, found, positions, checks)
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
        except PerfError as error:
            if isinstance(error, BadConditionsError) or len(failures) == len(ready.candidates) - 1:
                raise
            failures[name] = error
            del states[name]
        else:
            busy |= working(ready, name, others, tools, tools.clock() - began)
    first = ready.running.started_first
    # Workers of two commits need not do the same beside decoding.
    scripts = {arm.name: arm.argv[-1:] for arm in ready.running.arms}
    if busy:
        return busy | failures  # what the others were timed beside is none of their fault: they have the next launch
    meddling = _meddling(ready, tools)
    launches: dict[str, Launch | PerfError] = {}
    for name, one in states.items():
        alike = scripts[name] == scripts[ARMS[0]]
        hidden = one.outside.hidden_share() if alike else None
        other = None if ready.outputs_may_differ else same_texts(one.agreed)
        launches[name] = meddling or (one.outside.fault() if alike else None) or other or Launch(
            session, first, start_s, one.seconds, plan.steps, tuple(one.kept), tuple(one.discarded), pinned,
            hidden_share=None if hidden is None else round(hidden, 6),
        )  # fmt: skip
    return launches | failures


def _meddling(ready: Prepared, tools: Tools) -> InvalidError | None:
    """Say what was done to the arms' processes while they were measured, by something that is none of ours."""
    stopped = [name for name in ready.sides if ready.running.workers[name].was_stopped()]
    if stopped:
        found = f"the process of {' and '.join(stopped)} was stopped by a signal while it was measured"
    elif tools.placement.was_undone():
        found = "threads were moved to other cores, or given another priority, while they were measured"
    elif tools.placement.is_partial():
        found = "the arms' threads have different priorities"
    elif changed := tools.compiled_changed():
        found = f"what MLX had compiled for the baseline was changed: {changed[0]}"
    elif strays := tools.end_strays(ready.running.pids.values()):
        found = f"an arm left a process behind that is no longer its own: {', '.join(strays)}"
    else:
        return None
    return InvalidError(
        found,
        expected="processes that nobody touches",
        remedy="a fusion may touch no other process; run it again",
    )


def _given_up(discarded: int, found: list[Fault]) -> BadConditionsError:
    counts = Counter(fault.code for fault in found)
    worst = next(fault for fault in reversed(found) if fault.code == counts.most_common(1)[0][0])
    return BadConditionsError(
        f"{discarded} pairs of blocks of one launch were discarded "
        f"({', '.join(f'{code} x{count}' for code, count in counts.most_common())}); last: {worst.found}",
        expected="a machine fit to measure",
        remedy=worst.remedy,
    )
