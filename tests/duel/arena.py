"""Stand-ins for a duel: workers whose blocks take what the test says, on a clock that only they move."""

import random
import re
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.tools import Tools
from gemma3n_perf.errors import PerfError
from gemma3n_perf.hardware.placement import Place, Placement
from gemma3n_perf.hardware.types import Conditions, Fault, Stack
from gemma3n_perf.stats.verdicts import Caution
from tests.decode.fakes import FakeClock
from tests.fakes import STACK

LOADED = wire.Loaded("forged:1", "prompt:1", 40, 64, None)


def arm(name: str, text: str = "here", *, planted: float = 0.0, packages: tuple[object, ...] = ("1", "1")) -> ReadyArm:
    """Return an arm that is ready to start."""
    planted_caution = (Caution("planted", f"{name} {text}: a slowdown was planted", "leave it out"),) if planted else ()
    return ReadyArm(name, text, ("python",), {}, "mlx_vlm", planted, (text, *packages), packages, planted_caution)


ARMS = (arm("baseline"), arm("candidate"))


@dataclass
class FakeWorker:
    """One running arm of an arena."""

    arena: "Arena"
    arm: ReadyArm
    launch: int
    number: int
    asked: list[wire.Request] = field(default_factory=list)
    closed: bool = False
    greeted: bool = False
    planted: dict[str, float] = field(default_factory=dict)
    workload: str = ""
    longest_wait_s: float = 0.0

    def send(self, request: wire.Request) -> None:
        """Take a request; two blocks at once are never asked for."""
        self.asked.append(request)
        if isinstance(request, wire.Block):
            assert self.arena.active is None, "two arms were active at once"
            self.arena.active = request.slot or self.arm.name

    def receive(self, timeout_s: float) -> wire.Reply:
        """Answer, letting the time of the answer pass."""
        assert not self.closed
        self.longest_wait_s = max(self.longest_wait_s, timeout_s if self.greeted else 0.0)
        if not self.greeted:
            self.greeted = True
            self.arena.fail(self.arm.name, "hello")
            spoken = self.arena.protocols.get(self.arm.name, wire.PROTOCOL)
            version = re.search(r"(?:^|\+)mlx==([^+]+)", self.arm.text)
            usual = replace(STACK, mlx=version[1]) if version else STACK
            return wire.Hello(spoken, 1 + self.number, msgspec.to_builtins(self.arena.stacks.get(self.arm.name, usual)))
        request = self.asked[-1]
        name = getattr(request, "slot", "") or self.arm.name
        if isinstance(request, wire.Block):
            assert self.arena.active == name
            self.arena.active = None
        if self.workload not in self.arena.spares or isinstance(request, wire.Load):
            self.arena.fail(name, type(request).__name__.lower())
        match request:
            case wire.Load():
                self.planted[name] = request.planted
                self.workload = request.workload
                return self.arena.loaded.get(name, LOADED)
            case wire.Prepare():
                self.arena.clock.passes(self.arena.start_s)
                self.arena.prepared.append((self.launch, name, self.workload))
                other = self.arena.tokens.get(name, "tokens:1") if self.arena.differs(self.launch) else "tokens:1"
                return wire.Prepared(other)
            case wire.Block(steps):
                self.arena.blocks.append((self.launch, name))
                tpot = self.arena.tpot_s(name, self.launch) * (1 + self.planted[name])
                tpot *= self.slowed(name)
                each = self.arena.steps_s(tpot)
                tpot = sum(each) / len(each) if each else tpot
                told = each if name not in self.arena.silent else ()
                self.arena.clock.passes(steps * tpot / self.arena.clock_speed.get(name, 1.0))
                return wire.Timed(steps * tpot, tpot, told, tokens=(self.arena.block_token(name),) * steps)
            case wire.WholeRun(variant, steps, logits):
                self.arena.whole_runs.append((self.launch, name, variant))
                tpot = (self.arena.whole_tpot_s or self.arena.tpot_s)(name, self.launch) * (1 + self.planted[name])
                tpot *= self.slowed(name)
                several = [one for _ in range(steps) for one in self.arena.steps_s(tpot)]
                if several and name not in self.arena.silent and not self.arena.whole_tpot_s:
                    tpot = sum(several) / len(several)
                self.arena.clock.passes(steps * tpot + self.arena.read_s.get(name, 0.0))
                np.save(logits, self.arena.logits.get(name, np.ones(8, dtype=np.float32)))
                own = self.arena.whole_tokens.get(name, ()) if self.arena.differs(self.launch) else ()
                tokens = (*own, *(7,) * steps)[:steps]
                return wire.Whole(steps * tpot, tokens, "float32")
            case wire.LastLogits(logits):
                self.arena.looked_at.append((self.launch, name))
                np.save(logits, self.arena.block_logits.get(name, np.ones(8, dtype=np.float32)))
                return wire.Written("float32")
            case wire.Prefill():
                seconds = self.arena.ttft_s(name, self.launch) * (1 + self.planted[name])
                self.arena.clock.passes(seconds)
                fault = self.arena.prefill_faults.get(name, "")
                return wire.Prefilled(0.0 if fault else seconds, self.arena.peaks.get(name, 1_000), 640, fault)
            case wire.Describe():
                return wire.Program(self.arena.programs.get(self.arm.name, {"python": "3.11"}))
            case _:
                raise AssertionError(f"unexpected {request}")

    def slowed(self, name: str) -> float:
        """How much longer a baseline takes that shares its process, or beside others."""
        if name != "baseline":
            return 1.0
        beside = any(one.launch == self.launch and one is not self and not one.closed for one in self.arena.workers)
        return (self.arena.slowed if self.arm.group else 1.0) * (self.arena.beside if beside else 1.0)

    def was_stopped(self) -> bool:
        """Tell whether a test has stopped it."""
        return self.arm.name in self.arena.stopped

    def close(self) -> None:
        """End."""
        self.closed = True
        self.arena.active = None


@dataclass
class Arena:
    """Where fake workers are timed. ``contended`` says whether the n-th block (from 0) counts as disturbed.

    ``used_s`` is what the threads of a process have used, ``cores`` where they are pinned.
    ``steps_s`` makes the steps of a block that workers report, all but ``silent`` ones.
    ``spares`` are workloads on which nothing is raised.
    ``idle`` says that a GPU clocks down while conditions are read.
    ``slowed`` is how much longer a baseline takes that shares its process, ``beside`` beside a process of another.
    ``clock_speed`` is that of an arm's own clock, ``cpu_s`` the CPU time that a process has used.
    ``block_token`` is what an arm decodes in a block.
    ``differs`` says in which launches, from 0, ``tokens`` and ``whole_tokens`` count.
    ``niceness`` is that of all threads but the ``preferred``.
    ``read_s`` is what an arm takes to read the prompt of a whole run, ``strays`` are processes that arms left behind.
    """

    tpot_s: Callable[[str, int], float] = lambda name, launch: 0.02
    start_s: float = 1.0
    contended: Callable[[int], bool] = lambda block: False
    raises: dict[tuple[str, str], PerfError] = field(default_factory=dict)
    from_launch: int = 0
    spares: frozenset[str] = frozenset()
    slowed: float = 1.0
    beside: float = 1.0
    whole_tpot_s: Callable[[str, int], float] | None = None
    whole_tokens: dict[str, tuple[int, ...]] = field(default_factory=dict)
    differs: Callable[[int], bool] = lambda launch: True
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    block_logits: dict[str, np.ndarray] = field(default_factory=dict)
    looked_at: list[tuple[int, str]] = field(default_factory=list)
    whole_runs: list[tuple[int, str, int]] = field(default_factory=list)
    stacks: dict[str, Stack] = field(default_factory=dict)
    loaded: dict[str, wire.Loaded] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    programs: dict[str, dict[str, str]] = field(default_factory=dict)
    protocols: dict[str, int] = field(default_factory=dict)
    ttft_s: Callable[[str, int], float] = lambda name, launch: 0.5
    prefill_faults: dict[str, str] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    seed: int = 1
    clock: FakeClock = field(default_factory=FakeClock)
    workers: list[FakeWorker] = field(default_factory=list)
    blocks: list[tuple[int, str]] = field(default_factory=list)
    prepared: list[tuple[int, str, str]] = field(default_factory=list)
    active: str | None = None
    slept: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    probed: int = 0
    idle: bool = False
    used_s: Callable[[int], dict[int, float]] = lambda pid: {}
    steps_s: Callable[[float], tuple[float, ...]] = lambda tpot: ()
    silent: frozenset[str] = frozenset()
    cores: dict[int, Set[int]] = field(default_factory=dict)
    clock_speed: dict[str, float] = field(default_factory=dict)
    cpu_s: Callable[[int], float] = lambda pid: 0.0
    stopped: frozenset[str] = frozenset()
    read_s: dict[str, float] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    block_token: Callable[[str], int] = lambda name: 7
    niceness: int = 0
    preferred: dict[int, int] = field(default_factory=dict)

    def spawn(self, arm: ReadyArm, shared: bool = False) -> FakeWorker:
        """Start a worker."""
        self.workers.append(FakeWorker(self, arm, len(self.workers) // 2, len(self.workers)))
        return self.workers[-1]

    def fail(self, name: str, when: str) -> None:
        """Raise what the test has put here, once enough launches have gone well."""
        if (len(self.workers) - 1) // 2 >= self.from_launch and (name, when) in self.raises:
            raise self.raises[name, when]

    def start(self) -> bool:
        """Begin an interval of the probe."""
        return self.idle

    def stop(self) -> Conditions:
        """Tell whether the block was contended."""
        self.probed += 1
        return Conditions(steal=0.5 if self.contended(self.probed - 1) else 0.0)

    @staticmethod
    def faults(conditions: Conditions) -> tuple[Fault, ...]:
        """Find fault with a steal of a half."""
        return (Fault("steal", "the hypervisor took 50 %", "find another machine"),) if conditions.steal else ()

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.clock.passes(seconds)

    def place(self, thread: int) -> Place:
        """Tell which cores a thread is pinned to, and its priority."""
        return frozenset(self.cores[thread]), (self.preferred.get(thread, self.niceness), 0)

    @property
    def tools(self) -> Tools:
        """What a duel is given."""
        return Tools(
            self.spawn, self, self.faults, self.clock, self.sleep, random.Random(self.seed), self.notes.append,
            placement=Placement(self.used_s, self.cores.__setitem__, (0, 1), self.place), cpu_seconds=self.cpu_s,
            end_strays=lambda ours: self.strays,
        )  # fmt: skip


def noisy(effect: float = 0.0, launch_sd: float = 0.004, block_sd: float = 0.02, seed: int = 7) -> Callable[..., float]:
    """Return seconds per token around 20 ms: a candidate ``effect`` faster, launches and blocks that scatter."""
    rng = random.Random(seed)
    offsets: dict[tuple[str, int], float] = {}

    def tpot_s(name: str, launch: int) -> float:
        offset = offsets.setdefault((name, launch), rng.gauss(0.0, launch_sd / 2**0.5))
        faster = 1 + effect if name == "candidate" else 1.0
        return 0.02 / faster * (1 + offset) * (1 + rng.gauss(0.0, block_sd))

    return tpot_s


def stalling(share: float = 0.06, seed: int = 8) -> Callable[[float], tuple[float, ...]]:
    """Return five steps of a block, of which a share stalls for as long as one to four more."""
    rng = random.Random(seed)
    return lambda tpot: tuple(
        tpot * (1 + rng.gauss(0.0, 0.01) + (rng.random() < share) * rng.uniform(1.0, 4.0)) for _ in range(5)
    )


def with_version(**changes: Any) -> Stack:
    """Return the fake stack with other versions."""
    return replace(STACK, **changes)
