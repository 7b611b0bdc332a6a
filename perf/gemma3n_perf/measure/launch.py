"""One launch of a duel: two fresh processes, loaded, warmed up, and measured in alternating blocks, one at a time.

Opinion: what disturbs the machine must disturb both arms alike. So blocks are short, their order is drawn anew for
every pair, and a pair of which one block was contended is discarded whole.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from gemma3n_perf.decode.session import Clock, Probe
from gemma3n_perf.errors import BadConditionsError, WorkerFailedError
from gemma3n_perf.hardware.types import Conditions, Fault, Stack
from gemma3n_perf.measure import worker as wire
from gemma3n_perf.measure.agreement import ARMS, same_tokens, same_work
from gemma3n_perf.measure.ready import ReadyArm
from gemma3n_perf.measure.rounds import FaultsOf, Patience, Sleep
from gemma3n_perf.measure.workers import Spawn, Worker

DROP, TAIL = 1, 1
"""Tokens at either end of a block that do not count: while the first is computed nothing else is, and while the last
is, no next step is built. Between them decode runs as it does for ever."""

BLOCK_TOKENS, BLOCK_S = 5, 0.1
"""Tokens of a block that count: so many, or more where they would take less than so many seconds."""

WARM_BLOCKS = 3
_T = TypeVar("_T")
Pairs = Callable[[float, float], int]
"""From seconds of a pair of blocks and seconds of starting a launch to the pairs of a launch."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds after which a worker counts as hung. ``block`` is added to many times what a block takes."""

    start: float = 300.0
    load: float = 900.0
    prepare: float = 900.0
    block: float = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """A workload, and where its checkpoint is: ``source`` is a preset, folder or hub id, ``root`` the forged ones."""

    workload: str
    source: str
    root: str


@dataclass(frozen=True, slots=True)
class Tools:
    """What a duel needs of the world."""

    spawn: Spawn
    probe: Probe
    faults_of: FaultsOf
    clock: Clock
    sleep: Sleep
    rng: random.Random
    note: Callable[[str], None] = lambda text: None
    waits: Waits = field(default_factory=Waits)
    patience: Patience = field(default_factory=lambda: Patience(first_pause=0.2, longest_pause=10.0, least_discards=12))


@dataclass(frozen=True, slots=True)
class Block:
    """A few tokens by one arm: ``tpot_s`` seconds per token that counts, ``seconds`` of all its steps."""

    arm: str
    tpot_s: float
    seconds: float
    conditions: Conditions
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pace:
    """How a workload is cut up, the same in every launch: ``steps`` of a block, ``pairs`` of blocks."""

    steps: int
    pairs: int


@dataclass(frozen=True, slots=True)
class Launch:
    """What one launch measured. ``pairs`` hold two blocks each, in the order they ran; ``seconds`` is measuring time.

    ``started_first`` is the arm whose process was started first, ``start_s`` how long starting, loading and warming up
    took. ``discarded`` pairs were contended; their time is part of ``seconds``.
    """

    session: int
    started_first: str
    start_s: float
    seconds: float
    steps: int
    pairs: tuple[tuple[Block, Block], ...]
    discarded: tuple[tuple[Block, Block], ...] = ()

    def tpot_s(self, arm: str) -> tuple[float, ...]:
        """Seconds per token of one arm's blocks that count."""
        return tuple(block.tpot_s for pair in self.pairs for block in pair if block.arm == arm)


@dataclass(frozen=True, slots=True)
class Side:
    """What one arm said of itself before it was measured."""

    stack: Stack
    loaded: wire.Loaded
    token_digest: str


@dataclass(frozen=True, slots=True)
class Started:
    """Both arms, ready to be timed. ``notes`` tell what differs and may; ``tail`` is what both leave out of a block."""

    workers: Mapping[str, Worker]
    sides: Mapping[str, Side]
    started_first: str
    notes: tuple[str, ...]
    tail: int = TAIL


@contextmanager
def started(arms: tuple[ReadyArm, ReadyArm], job: Job, tools: Tools) -> Iterator[Started]:
    """Start both arms at once, in an order drawn anew; yields them prepared, and ends them whatever happens.

    Raises what a worker raises, NotComparableError and InvalidError where the arms do not decode the same thing.
    """
    order = tools.rng.sample(arms, 2)
    with ExitStack() as held:
        workers: dict[str, Worker] = {}
        for arm in order:
            workers[arm.name] = tools.spawn(arm)
            held.callback(workers[arm.name].close)
        hellos = {arm.name: _hello(workers[arm.name], arm, tools.waits.start) for arm in order}
        stacks = {name: msgspec.convert(hello.stack, Stack) for name, hello in hellos.items()}
        # Both arms are timed alike: where one is of a commit that knows no tail, neither leaves one out.
        tail = TAIL if all(hello.protocol >= wire.PROTOCOL for hello in hellos.values()) else 0
        for arm in order:
            workers[arm.name].send(wire.Load(job.workload, job.source, job.root, arm.engine, arm.planted))
        loaded = {name: _expect(one, wire.Loaded, tools.waits.load) for name, one in workers.items()}
        same_work(loaded)
        for one in workers.values():
            one.send(wire.Prepare())
        tokens = {name: _expect(one, wire.Prepared, tools.waits.prepare).token_digest for name, one in workers.items()}
        notes = same_tokens(tokens, stacks, arms)
        sides = {name: Side(stacks[name], loaded[name], tokens[name]) for name in ARMS}
        yield Started(workers, sides, order[0].name, notes, tail)


def warm_up(running: Started, tools: Tools, generate: int, pace: Pace | None, begun: float, pairs: Pairs) -> Pace:
    """Decode a few blocks of each arm that do not count, and settle the pace where none is given.

    Raises what ``pairs`` raises where the budget is too short.
    """
    steps = pace.steps if pace else min(generate, BLOCK_TOKENS + DROP + TAIL)
    tpots = []
    for _ in range(WARM_BLOCKS):
        tpots.append([_time(running, name, steps, tools.waits.block * 10).tpot_s for name in ARMS])
    if pace:
        return pace
    fastest = min(tpots[-1])
    steps = min(generate, DROP + TAIL + max(BLOCK_TOKENS, math.ceil(BLOCK_S / fastest)))
    pair_s = steps * sum(tpots[-1])
    return Pace(steps, pairs(pair_s, tools.clock() - begun))


def measure(running: Started, pace: Pace, tools: Tools, *, session: int, start_s: float) -> Launch:
    """Take ``pace.pairs`` pairs that count. Raises BadConditionsError where too many must be discarded."""
    kept: list[tuple[Block, Block]] = []
    discarded: list[tuple[Block, Block]] = []
    found: list[Fault] = []
    allowed, seconds = tools.patience.most_discards(pace.pairs), 0.0
    pauses = tools.patience.pauses()
    while len(kept) < pace.pairs:
        first, second = (_block(running, name, pace.steps, tools, found) for name in tools.rng.sample(ARMS, 2))
        seconds += first.seconds + second.seconds
        if not first.faults and not second.faults:
            kept.append((first, second))
            pauses = tools.patience.pauses()
            continue
        discarded.append((first, second))
        if len(discarded) > allowed:
            raise _given_up(len(discarded), found)
        tools.sleep(next(pauses))
    return Launch(session, running.started_first, start_s, seconds, pace.steps, tuple(kept), tuple(discarded))


def _block(running: Started, name: str, steps: int, tools: Tools, found: list[Fault]) -> Block:
    tools.probe.start()
    timed = _time(running, name, steps, tools.waits.block)
    conditions = tools.probe.stop()
    faults = tools.faults_of(conditions)
    found.extend(faults)
    return Block(name, timed.tpot_s, timed.seconds, conditions, tuple(fault.code for fault in faults))


def _time(running: Started, name: str, steps: int, timeout_s: float) -> wire.Timed:
    worker = running.workers[name]
    worker.send(wire.Block(steps, DROP, running.tail if steps > DROP + running.tail else 0))
    return _expect(worker, wire.Timed, timeout_s)


def _expect(worker: Worker, kind: type[_T], timeout_s: float) -> _T:
    reply = worker.receive(timeout_s)
    if not isinstance(reply, kind):
        raise WorkerFailedError(
            f"a worker answered {type(reply).__name__} where {kind.__name__} was due",
            expected=f"protocol {wire.PROTOCOL}",
            remedy="compare with a commit nearer to this one",
        )
    return reply


def _hello(worker: Worker, arm: ReadyArm, timeout_s: float) -> wire.Hello:
    hello = _expect(worker, wire.Hello, timeout_s)
    if not wire.OLDEST <= hello.protocol <= wire.PROTOCOL:
        raise WorkerFailedError(
            f"the worker of {arm.text} speaks protocol {hello.protocol}",
            expected=f"protocol {wire.OLDEST} to {wire.PROTOCOL}",
            remedy="compare with a commit nearer to this one",
        )
    return hello


def _given_up(discarded: int, found: list[Fault]) -> BadConditionsError:
    counts = Counter(fault.code for fault in found)
    worst = next(fault for fault in reversed(found) if fault.code == counts.most_common(1)[0][0])
    return BadConditionsError(
        f"{discarded} pairs of blocks of one launch were discarded "
        f"({', '.join(f'{code} x{count}' for code, count in counts.most_common())}); last: {worst.found}",
        expected="a machine fit to measure",
        remedy=worst.remedy,
    )
