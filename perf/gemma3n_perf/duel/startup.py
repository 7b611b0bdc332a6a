"""Starting the processes of a launch: every arm loaded, prepared and found to do the same work as the baseline."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar

import msgspec

from gemma3n_perf.duel import worker as wire
from gemma3n_perf.duel.agreement import ARMS, same_tokens, same_work
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.processes import Worker
from gemma3n_perf.duel.tools import UNBUILT_TOKENS, BlockLayout, Job, Side, Tools
from gemma3n_perf.errors import PerfError, WorkerFailedError
from gemma3n_perf.hardware.types import Stack

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Started:
    """All arms, ready to be timed: ``workers`` and ``sides`` by arm. ``notes`` tell, by candidate, what differs and
    may; ``failures`` are those of candidates that cannot take part. ``cut`` is how all are cut into blocks,
    ``pids`` the processes they live in.
    """

    workers: Mapping[str, Worker]
    sides: Mapping[str, Side]
    started_first: str
    notes: Mapping[str, tuple[str, ...]]
    cut: BlockLayout
    slots: Mapping[str, str] = field(default_factory=dict)
    pids: tuple[int, ...] = ()
    failures: Mapping[str, PerfError] = field(default_factory=dict)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The candidates that can be timed."""
        return tuple(name for name in self.sides if name != ARMS[0])


@contextmanager
def started(arms: Sequence[ReadyArm], job: Job, tools: Tools) -> Iterator[Started]:
    """Start a baseline (the first of ``arms``) and its candidates at once, in an order drawn anew; yields them
    prepared, and ends them whatever happens.

    Raises what a worker raises, NotComparableError and InvalidError where the arms do not decode the same thing. Where
    there are several candidates, only for the baseline or for all of them: the rest goes on.
    """
    homes = list(dict.fromkeys(arm.home for arm in arms))
    tools.rng.shuffle(homes)
    order = sorted(arms, key=lambda arm: homes.index(arm.home))
    with ExitStack() as held:
        processes: dict[str, Worker] = {}
        for home in homes:
            processes[home] = tools.spawn(next(arm for arm in arms if arm.home == home))
            held.callback(processes[home].close)
        workers = {arm.name: processes[arm.home] for arm in order}
        firsts = {arm.home: arm for arm in reversed(order)}
        hellos = {home: _hello(processes[home], firsts[home], tools.waits.start) for home in homes}
        stacks = {home: msgspec.convert(hello.stack, Stack) for home, hello in hellos.items()}
        # All arms are timed alike: what one is too old for, none does.
        spoken = min(hello.protocol for hello in hellos.values())
        cut = tools.cut if spoken >= 2 else replace(tools.cut, tail=0)
        if cut.built and spoken < 4:
            cut = replace(cut, tokens=max(cut.tokens, UNBUILT_TOKENS), built=False)
        startup = _Startup(arms, workers)
        loads = {
            arm.name: wire.Load(job.workload, job.source, job.root, arm.engine, arm.planted, _slot(arm), arm.fusions)
            for arm in order
        }
        loaded = startup.ask(loads, wire.Loaded, tools.waits.load)
        startup.check(loaded, lambda name: same_work(loaded[ARMS[0]], loaded[name]))
        slots = {arm.name: _slot(arm) for arm in order}
        prepares = {name: wire.Prepare(slot) for name, slot in slots.items()}
        tokens = startup.ask(prepares, wire.Prepared, tools.waits.prepare)
        of = {arm.name: stacks[arm.home] for arm in arms}
        sides = {name: Side(of[name], loaded[name], tokens[name].token_digest) for name in tokens}
        by_name = {arm.name: arm for arm in arms}

        def agree(name: str) -> tuple[str, ...]:
            pair = (by_name[ARMS[0]], by_name[name])
            return same_tokens(
                (sides[ARMS[0]].token_digest, sides[name].token_digest),
                (of[ARMS[0]], of[name]),
                (pair[0].packages, pair[1].packages),
                may_differ=job.tokens_may_differ,
            )

        notes = startup.check(sides, agree)
        fit = {name: sides[name] for name in (arm.name for arm in arms) if name in sides and name not in startup.failed}
        pids = tuple(hello.pid for hello in hellos.values())
        yield Started(workers, fit, order[0].name, notes, cut, slots, pids, startup.failed)


def _slot(arm: ReadyArm) -> str:
    return arm.name if arm.room else ""


class _Startup:
    """Asks all arms, process beside process, and leaves out candidates that fail while others go on."""

    def __init__(self, arms: Sequence[ReadyArm], workers: Mapping[str, Worker]) -> None:
        self._workers = workers
        self._alone = len(arms) == 2
        self.failed: dict[str, PerfError] = {}

    def ask(self, requests: Mapping[str, wire.Request], kind: type[_T], timeout_s: float) -> dict[str, _T]:
        """Send each arm its request, one at a time to each process, and return the answers by arm."""
        waiting = [(name, request) for name, request in requests.items() if name not in self.failed]
        answers: dict[str, _T] = {}
        while waiting:
            wave: dict[int, tuple[str, wire.Request]] = {}
            for name, request in waiting:
                wave.setdefault(id(self._workers[name]), (name, request))
            for name, request in wave.values():
                self._workers[name].send(request)
            for name, _ in wave.values():
                try:
                    answers[name] = expect(self._workers[name], kind, timeout_s)
                except PerfError as error:
                    self._fail(name, error)
            asked = {name for name, _ in wave.values()}
            waiting = [(name, request) for name, request in waiting if name not in asked]
        return {name: answers[name] for name in requests if name in answers}

    def check(
        self, present: Mapping[str, object], agree: Callable[[str], tuple[str, ...]]
    ) -> dict[str, tuple[str, ...]]:
        """Compare each candidate with the baseline."""
        notes: dict[str, tuple[str, ...]] = {}
        for name in present:
            if name != ARMS[0] and name not in self.failed:
                try:
                    notes[name] = agree(name)
                except PerfError as error:
                    self._fail(name, error)
        return notes

    def _fail(self, name: str, error: PerfError) -> None:
        self.failed[name] = error
        left = [one for one in self._workers if one != ARMS[0] and one not in self.failed]
        # An error that ended the process ended its other arms too; they would only repeat it.
        if name == ARMS[0] or self._alone or not left:
            raise error


def expect(worker: Worker, kind: type[_T], timeout_s: float) -> _T:
    """Return the next answer, which is to be a ``kind``. Raises what the worker raised, WorkerFailedError."""
    reply = worker.receive(timeout_s)
    if not isinstance(reply, kind):
        raise WorkerFailedError(
            f"a worker answered {type(reply).__name__} where {kind.__name__} was due",
            expected=f"protocol {wire.PROTOCOL}",
            remedy="compare with a commit nearer to this one",
        )
    return reply


def _hello(worker: Worker, arm: ReadyArm, timeout_s: float) -> wire.Hello:
    hello = expect(worker, wire.Hello, timeout_s)
    if not wire.OLDEST <= hello.protocol <= wire.PROTOCOL:
        raise WorkerFailedError(
            f"the worker of {arm.text} speaks protocol {hello.protocol}",
            expected=f"protocol {wire.OLDEST} to {wire.PROTOCOL}",
            remedy="compare with a commit nearer to this one",
        )
    return hello
