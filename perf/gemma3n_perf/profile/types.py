"""What a profile holds. Seconds and bytes; every figure is a median over rounds with its interval.

A part that could not be measured is a fact with a reason, and an absent one is an absence. Neither is a zero.
"""

from dataclasses import dataclass, field

from gemma3n_perf.hardware.types import Chip, Conditions, Stack

PARTS = ("histogram", "floor", "split", "contexts", "engines", "trace", "sweep")
"""In the order they are measured: the cheap and exact ones first, so that a short budget still buys something."""

HOST_BOUND, DEVICE_BOUND, MIXED = "host-bound", "device-bound", "mixed"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median over ``rounds`` with the interval that holds it at 95 %."""

    value: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Loop:
    """One way of decoding, in seconds per token: what the host spends on each stage, and ``tpot_s`` in all.

    ``build_s`` graph of the logits; ``sample_s`` the greedy choice, built and read back; ``dispatch_s`` handing the
    graph to the device, which may itself wait for the device; ``wait_s`` waiting for the token.
    """

    build_s: Estimate
    sample_s: Estimate
    dispatch_s: Estimate
    wait_s: Estimate
    tpot_s: Estimate


@dataclass(frozen=True, slots=True)
class Split:
    """The pipeline of a token. ``hidden_s`` = synchronous less pipelined time per token: what overlaps.

    ``exposed`` shows who is waited for: it is the share of a host delay of ``planted_s`` per token by which the time
    per token grows. 1: the host is the critical path; 0: the device is, and hides the host.
    """

    tokens: int
    synchronous: Loop
    pipelined: Loop
    hidden_s: Estimate
    planted_s: float
    exposed: Estimate
    host_s: Estimate
    bound: str


@dataclass(frozen=True, slots=True)
class Deviation:
    """One count that differs from another stack's or a publication's, and why, where that is known."""

    name: str
    before: int
    after: int
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A decode graph beside another one, named by ``against``; ``source`` says where that one comes from."""

    against: str
    source: str
    deviations: tuple[Deviation, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Operations of one decode token at ``position`` tokens of context.

    ``groups`` sums ``operations`` by what they do (see ``histogram.GROUPS``); ``per_layer`` divides what grows with the
    layers by their number. ``expected`` holds what the config calls for and ``found`` what the graph has of the same.
    """

    position: int
    layers: int
    nodes: int
    operations: dict[str, int]
    groups: dict[str, int]
    dtypes: dict[str, int]
    per_layer: dict[str, float]
    expected: dict[str, int]
    found: dict[str, int]
    comparisons: tuple[Comparison, ...] = ()


@dataclass(frozen=True, slots=True)
class Floor:
    """One token's weight products alone, against what the memory delivers.

    ``chain_s`` seconds per token of ``products`` products, of which the host spends ``dispatch_s`` handing them over.
    ``streamed_bytes`` come from the checkpoint's headers, ``by_part`` from the config's dimensions, in bytes as stored.
    ``gemv_bandwidth`` is one large product of the same kind, ``copy_bandwidth`` the best copy, bytes per second.
    ``tpot_s`` was decoded in the same rounds, so that ``share`` = chain / TPOT is paired.
    """

    products: int
    streamed_bytes: int
    by_part: dict[str, int]
    chain_s: Estimate
    dispatch_s: Estimate
    tpot_s: Estimate
    share: Estimate
    gemv_bandwidth: Estimate
    copy_bandwidth: float

    @property
    def stream_s(self) -> Estimate:
        """The streamed bytes at the speed of one large product, seconds per token."""
        rate = self.gemv_bandwidth
        value, low, high = (self.streamed_bytes / one for one in (rate.value, rate.high, rate.low))
        return Estimate(value, low, high, rate.rounds)


@dataclass(frozen=True, slots=True)
class Context:
    """Decode at one KV length: ``positions`` tokens are in the cache when the timing starts. ``ttft_s`` is prefill."""

    modality: str
    positions: int
    ttft_s: Estimate
    tpot_s: Estimate


@dataclass(frozen=True, slots=True)
class Contexts:
    """Text at several KV lengths, and an image. ``slope_s`` is seconds per token for every 1,000 tokens of context.

    ``image_s`` is image less text at the same length, paired by rounds; ``explained_s`` what the 256 tokens of an image
    cost by the slope, had they come on top of the text.
    """

    points: tuple[Context, ...]
    slope_s: Estimate
    image: Context | None
    image_s: Estimate | None
    explained_s: Estimate | None
    image_missing: str | None = None


@dataclass(frozen=True, slots=True)
class EngineResult:
    """One engine on the same checkpoint and prompt; ``error`` is its own message where it could not run.

    ``ratio`` is its throughput over mlx-vlm's model loop, paired. ``first_difference`` is the first greedy token, from
    1, that is not the model loop's on a short prompt; None where all agree or none could be compared (see ``note``).
    """

    engine: str
    version: str | None
    tpot_s: Estimate | None = None
    ratio: Estimate | None = None
    compared_tokens: int = 0
    first_difference: int | None = None
    error: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Engines:
    """Engines side by side: ``tokens`` decoded after a prompt of ``prompt_tokens``, (n-1)/(t_last - t_first)."""

    prompt_tokens: int
    tokens: int
    results: tuple[EngineResult, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """What the device itself says of a token. ``source`` names the counter, ``note`` how coarse it is.

    ``busy_s`` is the time per token in which at least one kernel or copy ran; ``span_s`` from the first to the last;
    ``kernels`` per token. None is unknown.
    """

    source: str
    busy_s: Estimate | None
    span_s: Estimate | None = None
    kernels: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Knob:
    """One setting against the default, as a duel. Effects are fractions of throughput; ``verdict`` is the duel's."""

    setting: str
    verdict: str
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    launches: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """All settings that were put to a duel. ``suggestion`` is the best one whose verdict is a win, or None."""

    knobs: tuple[Knob, ...]
    suggestion: str | None
    note: str | None = None


Part = Histogram | Floor | Split | Contexts | Engines | Trace | Sweep


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that was requested and not measured, as the record keeps it: an error's ``found`` and ``remedy``."""

    part: str
    reason: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """When a part was measured, ISO 8601, at which commit, for how many seconds and under which conditions.

    ``faults`` names what was wrong with the conditions: a caution, for rounds are interleaved and compared in pairs.
    """

    date: str
    commit: str | None
    dirty: bool | None
    seconds: float
    conditions: Conditions = field(default_factory=Conditions)
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadProfile:
    """All parts of one workload, each measured by itself and dated in ``taken``."""

    workload: str
    checkpoint_digest: str
    taken: dict[str, Taken] = field(default_factory=dict)
    histogram: Histogram | None = None
    floor: Floor | None = None
    split: Split | None = None
    contexts: Contexts | None = None
    engines: Engines | None = None
    trace: Trace | None = None
    sweep: Sweep | None = None
    missing: tuple[Missing, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """The profile of a chip class: one stack, several workloads."""

    schema: int
    chip: Chip
    stack: Stack
    workloads: tuple[WorkloadProfile, ...]
