"""Starting the processes of a launch: every arm loaded, prepared and found to do the same work as the baseline."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
from packaging.version import Version

from gemma3n_perf.decode.decoder import OWN_TEXT
from gemma3n_perf.decode.engines import DEFAULT, kind_of
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.agreement import ARMS, same_tokens, same_work
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.processes import Worker
from gemma3n_perf.duel.tools import UNBUILT_TOKENS, BlockLayout, Job, Side, Tools
from gemma3n_perf.errors import ArmUnavailableError, InvalidError, PerfError, WorkerFailedError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.verdicts import Caution
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload

_T = TypeVar("_T")
_MLX = re.compile(r"(?:^|\+)mlx==([^+]+)")

WHOLE_RUNS = 5
"""The first protocol that knows whole runs and variants of a prompt."""

CONTINUED, SHAPES, ENGINES, TEXTS, FORCED, LOGITS = 8, 9, 10, 11, 12, 13
"""The first protocols whose blocks can go on where the one before ended, whose workers know every shape, every engine,
whose blocks decode other texts in turn, whose whole runs are given tokens, and whose workers give a block's logits."""


@dataclass(frozen=True, slots=True)
class Running:
    """The processes of a launch, started and greeted: workers, stacks and process ids by arm.

    ``started_first`` is the arm whose process was started first, ``layout`` how decode of all arms is cut into blocks.
    """

    arms: tuple[ReadyArm, ...]
    workers: Mapping[str, Worker]
    stacks: Mapping[str, Stack]
    started_first: str
    layout: BlockLayout
    pids: Mapping[str, int]
    protocol: int = wire.PROTOCOL


@dataclass(frozen=True, slots=True)
class Prepared:
    """A baseline and candidates that can be timed on one workload: what each said of itself.

    ``cautions`` tell, by candidate, what differs and may; ``failures`` are those of candidates that cannot take part.
    ``outputs_may_differ`` says that arms may decode different tokens, ``gives_logits`` that those of blocks can be
    compared; ``parted`` are candidates that do where they
    prepare, in a few tokens, where one near tie is no proof: their whole runs are.
    """

    running: Running
    sides: dict[str, Side]
    cautions: Mapping[str, tuple[Caution, ...]]
    failures: dict[str, PerfError]
    outputs_may_differ: bool = False
    parted: frozenset[str] = frozenset()
    gives_logits: bool = False

    def model_id(self, name: str) -> str:
        """What a process knows an arm's model by."""
        return next(arm.model_id for arm in self.running.arms if arm.name == name)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The candidates that can be timed."""
        return tuple(name for name in self.sides if name != ARMS[0])

    def same_versions(self, name: str) -> bool:
        """Whether a candidate runs on the baseline's mlx and mlx-vlm."""
        ours, theirs = (self.sides[arm].stack for arm in (ARMS[0], name))
        return (ours.mlx, ours.mlx_vlm) == (theirs.mlx, theirs.mlx_vlm)

    def drop(self, name: str, error: PerfError) -> None:
        """Go on without a candidate that failed. Raises ``error`` where it is the baseline's, or no other is left."""
        if name == ARMS[0] or self.candidates == (name,):
            raise error
        self.failures[name] = error
        del self.sides[name]

    @property
    def can_continue(self) -> bool:
        """Whether a block may go on where the one before it ended, in both arms: each has a decoder of its own."""
        workers = {id(self.running.workers[name]) for name in self.sides}
        return self.running.layout.built and self.running.protocol >= CONTINUED and len(workers) == len(self.sides)

    def time(
        self, name: str, steps: int, timeout_s: float, *, continued: bool = False, text: int = OWN_TEXT
    ) -> wire.Timed:
        """Time a block of one arm, of a ``text`` that its worker may be too old for. Raises what its worker raises."""
        running, layout = self.running, self.running.layout
        short = steps <= layout.drop + layout.tail
        drop, tail = layout.drop if steps > layout.drop else 0, 0 if short else layout.tail
        settled = layout.built and running.protocol >= WHOLE_RUNS
        text = text if running.protocol >= TEXTS else OWN_TEXT
        block = wire.Block(steps, drop, tail, self.model_id(name), layout.built, settled, continued, text)
        running.workers[name].send(block)
        return expect(running.workers[name], wire.Timed, timeout_s)


@contextmanager
def started(arms: Sequence[ReadyArm], tools: Tools) -> Iterator[Running]:
    """Start the processes of a baseline (the first of ``arms``) and its candidates, in an order drawn anew; yields
    them greeted, and ends them whatever happens. Raises what a worker raises.
    """
    names = list(dict.fromkeys(arm.process for arm in arms))
    tools.rng.shuffle(names)
    order = sorted(arms, key=lambda arm: names.index(arm.process))
    with ExitStack() as stack:
        processes: dict[str, Worker] = {}
        shared = len({arm.parent for arm in arms}) == 1
        for name in names:
            processes[name] = tools.spawn(next(arm for arm in arms if arm.process == name), shared)
            stack.callback(processes[name].close)
        firsts = {arm.process: arm for arm in reversed(order)}
        hellos = {name: _hello(processes[name], firsts[name], tools.waits.start) for name in names}
        # Use the oldest worker's feature set for all arms.
        oldest = min(hello.protocol for hello in hellos.values())
        layout = tools.layout if oldest >= 2 else replace(tools.layout, tail=0)
        if layout.built and oldest < 4:
            layout = replace(layout, tokens=max(layout.tokens, UNBUILT_TOKENS), built=False)
        yield Running(
            tuple(order),
            {arm.name: processes[arm.process] for arm in order},
            {arm.name: msgspec.convert(hellos[arm.process].stack, Stack) for arm in order},
            order[0].name,
            layout,
            {arm.name: hellos[arm.process].pid for arm in order},
            oldest,
        )


def prepare(running: Running, job: Job, candidates: Sequence[str], tools: Tools, variant: int = 0) -> Prepared:
    """Have the baseline and ``candidates`` load and prepare a workload, and compare the work they do.

    ``variant`` numbers prompts and start positions; workers of older commits know but one.

    Raises what a worker raises, NotComparableError and InvalidError where the arms do not decode the same thing. Where
    there are several candidates, only for the baseline or for all of them: the others go on.
    """
    workload = Workload.parse(job.workload)
    needed = ENGINES if workload.engine else 0 if workload.shape.is_known_of_old else SHAPES
    if running.protocol < needed:
        came = "engines" if workload.engine else "batches, verification and a KV cache that grows inside a run"
        raise ArmUnavailableError(
            f"an arm is too old for {job.workload}: its worker speaks protocol {running.protocol}",
            expected=f"protocol {needed}, which {came} came with",
            remedy="compare commits that have it, or measure a workload of the default set",
        )
    arms = {arm.name: arm for arm in running.arms if arm.name in (ARMS[0], *candidates)}
    requests = _Requests(arms, running.workers)
    variant = variant if running.protocol >= WHOLE_RUNS else 0
    loads = {name: load(job, arm, running.protocol, arm.planted, variant) for name, arm in arms.items()}
    loaded = requests.send(loads, wire.Loaded, tools.waits.load)
    requests.check(loaded, lambda name: same_work(loaded[ARMS[0]], loaded[name]))
    prepares = {name: wire.Prepare(arm.model_id) for name, arm in arms.items()}
    tokens = requests.send(prepares, wire.Prepared, tools.waits.prepare)
    sides = {name: Side(running.stacks[name], loaded[name], one.token_digest) for name, one in tokens.items()}

    wait_for_runs = running.protocol >= WHOLE_RUNS and not job.outputs_may_differ

    def agree(name: str) -> tuple[Caution, ...]:
        digests = (sides[ARMS[0]].token_digest, sides[name].token_digest)
        return () if wait_for_runs else same_tokens(digests, may_differ=job.outputs_may_differ)

    cautions = requests.check(sides, agree)
    fit = {name: sides[name] for name in arms if name in sides and name not in requests.failed}
    parted = (name for name, side in fit.items() if side.token_digest != sides[ARMS[0]].token_digest)
    return Prepared(
        running, fit, cautions, requests.failed, job.outputs_may_differ,
        frozenset(parted) if wait_for_runs else frozenset(),
        running.protocol >= LOGITS and not job.outputs_may_differ and not has_own_loop(job, running.arms),
    )  # fmt: skip


def has_own_loop(job: Job, arms: Sequence[ReadyArm]) -> bool:
    """Whether an engine other than the default one takes part: its loop decides what is decoded when."""
    return bool(Workload.parse(job.workload).engine) or any(arm.engine != DEFAULT for arm in arms)


def load(job: Job, arm: ReadyArm, protocol: int, planted: float = 0.0, variant: int = 0) -> wire.Load:
    """Return what an arm is to load: by the workload's engine, where it names one. Raises UsageError for two."""
    workload = Workload.parse(job.workload)
    kind_of(workload, arm.engine, arm.fusions)
    # A worker of an older commit knows other presets, and by folders of its own time.
    old = protocol < ENGINES and job.source in PRESETS
    source = str(Path(job.root) / PRESETS[job.source].directory) if old else job.source
    engine, bare = workload.engine or arm.engine, str(workload.bare)
    return wire.Load(bare, source, job.root, engine, planted, arm.model_id, arm.fusions, variant)


class _Requests:
    """Requests to all arms, process beside process, that leave out candidates which fail while others go on."""

    def __init__(self, arms: Mapping[str, ReadyArm], workers: Mapping[str, Worker]) -> None:
        self._workers = {name: workers[name] for name in arms}
        self.failed: dict[str, PerfError] = {}

    def send(self, requests: Mapping[str, wire.Request], kind: type[_T], timeout_s: float) -> dict[str, _T]:
        """Send each arm its request, one at a time to each process, and return the replies by arm."""
        waiting = {name: request for name, request in requests.items() if name not in self.failed}
        replies: dict[str, _T] = {}
        while waiting:
            wave = {id(self._workers[name]): name for name in reversed(waiting)}
            for name in wave.values():
                self._workers[name].send(waiting[name])
            for name in wave.values():
                del waiting[name]
                try:
                    replies[name] = expect(self._workers[name], kind, timeout_s)
                except PerfError as error:
                    self._fail(name, error)
        return {name: replies[name] for name in requests if name in replies}

    def check(
        self, present: Mapping[str, object], agree: Callable[[str], tuple[Caution, ...]]
    ) -> dict[str, tuple[Caution, ...]]:
        """Compare each candidate with the baseline; returns what is worth a caution, by candidate."""
        cautions: dict[str, tuple[Caution, ...]] = {}
        for name in present:
            if name != ARMS[0] and name not in self.failed:
                try:
                    cautions[name] = agree(name)
                except PerfError as error:
                    self._fail(name, error)
        return cautions

    def _fail(self, name: str, error: PerfError) -> None:
        self.failed[name] = error
        # An error that ended the process ended its other arms too; they would only repeat it.
        if name == ARMS[0] or all(one in self.failed for one in self._workers if one != ARMS[0]):
            raise error


def expect(worker: Worker, kind: type[_T], timeout_s: float) -> _T:
    """Return the next reply, which is to be a ``kind``. Raises what the worker raised, WorkerFailedError."""
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
    requested, mlx = _MLX.search(arm.text), str(hello.stack.get("mlx"))
    if requested and Version(mlx) != Version(requested[1]):
        raise InvalidError(f"{arm.text} runs on mlx {mlx}", expected=f"mlx {requested[1]}", remedy="unset PYTHONPATH")
    return hello
