"""What a launch is given: the job, the tools, and how decode is divided into blocks."""

import random
from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field

from gemma3n_perf.decode.decoder import Clock, Probe
from gemma3n_perf.decode.runs import FaultsOf, RetryPolicy, Sleep
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.processes import Spawn
from gemma3n_perf.hardware.placement import Placement
from gemma3n_perf.hardware.trees import tree_seconds
from gemma3n_perf.hardware.types import Stack


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """How decode is divided into blocks: ``tokens`` that count, or more where they take less than ``least_s`` seconds.

    ``drop`` and ``tail`` are tokens at either end that do not count. Where the device computes beside the host, nothing
    else is done while the first token is computed, and no next step is built while the last is. Where dispatching takes
    as long as computing, a block can be ``built`` instead: it begins with its first step built and ends with another
    one built, so that it holds whole periods, however short it is.
    ``new_tokens`` are decoded by a new process before any counts, or as many as ``new_s`` seconds hold.
    """

    tokens: int = 5
    drop: int = 1
    tail: int = 1
    least_s: float = 0.03
    built: bool = False
    new_tokens: int = 0
    new_s: float = 2.5


ON_CUDA = BlockLayout(new_tokens=600)
"""MLX keeps the CUDA graphs that it instantiates, and a new process knows none: on an H200, e2b-4bit with cuda-step,
one step in four took twice as long at first, one in ten after 150, one in fifty after 600, rested in between or not."""

ON_CPU = BlockLayout(tokens=1, drop=0, tail=0, least_s=0.0, built=True)
"""MLX's CPU stream lets ten tasks wait, so dispatching a step takes as long as computing it. The speed of a shared core
changes within a tenth of a second: the shorter the blocks, the more alike are those of a pair (docs/method.md)."""

LAYOUTS = {"cpu": ON_CPU, "nvidia": ON_CUDA}
"""By vendor of the chip, where not ``BlockLayout()``."""

UNBUILT_TOKENS = 3
"""The fewest of a block on a CPU where an arm is too old for built ones: its ends are a smaller part of it."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds after which a worker counts as hung. ``block`` is added to many times what a block takes."""

    start: float = 300.0
    load: float = 900.0
    prepare: float = 900.0
    block: float = 60.0

    def within(self, seconds: float) -> "Waits":
        """The same, none longer than this."""
        return Waits(*(min(one, seconds) for one in astuple(self)))


@dataclass(frozen=True, slots=True)
class Job:
    """A workload, and where its checkpoint is: ``source`` is a preset, folder or hub id, ``root`` the forged ones.

    ``outputs_may_differ`` turns other tokens or logits into a caution; ``prefills`` says whether those are timed too,
    ``runs`` whether whole runs of the candidate are.
    ``least_s`` is what a token takes at least (see ``least_time``).
    """

    workload: str
    source: str
    root: str
    outputs_may_differ: bool = False
    prefills: bool = False
    runs: bool = False
    least_s: float = 0.0


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
    layout: BlockLayout = field(default_factory=BlockLayout)
    waits: Waits = field(default_factory=Waits)
    placement: Placement = field(default_factory=Placement)
    cpu_seconds: Callable[[int], float | None] = tree_seconds
    compiled_changed: Callable[[], list[str]] = list
    end_strays: Callable[[Iterable[int]], list[str]] = lambda ours: []
    retry_policy: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(first_pause=0.1, longest_pause=2.0, discards_per_run=0.5, least_discards=12)
    )

    def rng_apart(self) -> random.Random:
        """Return a generator of its own, of the same seed the same: what else chance decides stays as it was."""
        return random.Random(hash(self.rng.getstate()[1]))


@dataclass(frozen=True, slots=True)
class Side:
    """What one arm said of itself before it was measured."""

    stack: Stack
    loaded: wire.Loaded
    token_digest: str
