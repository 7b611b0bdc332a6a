"""Warming up a launch, and settling how it is cut into blocks.

Opinion: how decode may be cut is measured, not known of a device. Where the device has nothing left to do once the host
has dispatched a token, every token of a block is a whole period of generation; where it has, those at its ends are not.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gemma3n_perf.measure import worker as wire
from gemma3n_perf.measure.agreement import ARMS
from gemma3n_perf.measure.muster import Started, expect
from gemma3n_perf.measure.tools import HOST_BOUND, Cut, Tools

WARM_TOKENS, WARM_S, LEAST_ROUNDS = 20, 0.5, 3
"""How much each arm decodes before it counts: so many tokens or seconds, whichever is less, in three blocks or more."""

AT_ONCE = 0.1
"""Share of a step: an arm whose last token of a block is there within it waits for its host alone. On H100 machines
stock decode has it within 0.02 of a step."""

Pairs = Callable[[float, float], int]
"""From seconds of a pair of blocks and seconds of starting a launch to the pairs of a launch."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How a candidate's launches are cut up, all of them alike: ``steps`` of a block, ``pairs`` of blocks."""

    steps: int
    pairs: int
    cut: Cut = field(default_factory=Cut)


def timed(running: Started, name: str, pace: Pace, timeout_s: float) -> wire.Timed:
    """Return what one block of an arm took. Raises what a worker raises."""
    worker, cut, steps = running.workers[name], pace.cut, pace.steps
    short = steps <= cut.drop + cut.tail
    drop, tail = cut.drop if steps > cut.drop else 0, 0 if short else cut.tail
    worker.send(wire.Block(steps, drop, tail, running.slots.get(name, ""), cut.built))
    return expect(worker, wire.Timed, timeout_s)


def warm_up(
    running: Started, tools: Tools, generate: int, paces: Mapping[str, Pace], begun: float, pairs: Pairs
) -> tuple[dict[str, Pace], bool]:
    """Decode a few blocks of each arm that do not count, put the arms' threads on the same cores, and settle the pace
    of each candidate that ``paces`` has none of. Returns all paces, and whether threads are held.

    Raises what ``pairs`` raises where the budget is too short.
    """
    cut = running.cut
    warm = Pace(min(generate, cut.tokens + cut.drop + cut.tail), 1, replace(cut, drop=0, tail=0))
    rounds, held = LEAST_ROUNDS, False
    blocks: dict[str, list[wire.Timed]] = {name: [] for name in running.sides}
    done = 0
    tools.placement.watch(running.pids)
    while done < rounds:
        if done == rounds // 2:
            held = tools.placement.hold()
        for name, own in blocks.items():
            own.append(timed(running, name, warm, tools.waits.block * 10))
        done += 1
        if done == 1:
            tokens = min(WARM_TOKENS, WARM_S / max(own[0].tpot_s for own in blocks.values()))
            rounds = max(LEAST_ROUNDS, math.ceil(tokens / warm.steps))
    late = {name: own[rounds // 2 :] for name, own in blocks.items()}
    tpot_s = {name: statistics.median(one.tpot_s for one in own) for name, own in late.items()}
    start_s = tools.clock() - begun
    settled: dict[str, Pace] = {}
    for name in running.candidates:
        both = (ARMS[0], name)
        built = running.may_build and all(host_bound(late[one]) for one in both)
        settled[name] = paces.get(name) or _pace(
            HOST_BOUND if built and not cut.built else cut,
            [tpot_s[one] for one in both],
            generate,
            lambda pair_s: pairs(pair_s, start_s),
        )
    return settled, held


def host_bound(blocks: Sequence[wire.Timed]) -> bool:
    """Say whether the last token of whole ``blocks`` was there as soon as it was asked for, nothing else being done.

    An arm whose worker does not tell its steps is not.
    """
    shares = [one.step_s[-1] / statistics.median(one.step_s[1:-1]) for one in blocks if len(one.step_s) > 2]
    return len(shares) == len(blocks) and statistics.median(shares) <= AT_ONCE


def _pace(cut: Cut, tpot_s: Sequence[float], generate: int, pairs: Callable[[float], int]) -> Pace:
    steps = min(generate, cut.drop + cut.tail + max(cut.tokens, math.ceil(cut.least_s / min(tpot_s))))
    return Pace(steps, pairs(steps * sum(tpot_s)), cut)
