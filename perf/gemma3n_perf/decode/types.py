"""What one decode leaves behind. The run is the unit of sampling; its tokens are correlated and never samples."""

from dataclasses import dataclass, field

from gemma3n_perf.hardware.types import Conditions


@dataclass(frozen=True, slots=True)
class Run:
    """One timed decode of ``tokens`` steps in ``seconds``, from the fixed position to the last token read.

    ``step_s`` are the ``tokens`` intervals between reads, seconds: for looking at, never for inference.
    ``faults`` names why a run was discarded; an empty tuple means it counts.
    """

    seconds: float
    tokens: int
    step_s: tuple[float, ...]
    conditions: Conditions
    faults: tuple[str, ...] = ()

    @property
    def tpot_s(self) -> float:
        """Time per output token, seconds."""
        return self.seconds / self.tokens


@dataclass(frozen=True, slots=True)
class HostWork:
    """What the host does for one decode token. ``python`` is the minor version that counted, as ``3.11``.

    ``python_calls`` are calls of Python functions, ``mlx_calls`` those of MLX's functions, methods, operators,
    properties and compiled functions; ``by_name`` has the latter, most frequent first.
    """

    python_calls: int
    mlx_calls: int
    by_name: dict[str, int]
    python: str


@dataclass(frozen=True, slots=True)
class Graph:
    """Counts for one decode token.

    ``calls`` are what the model asks of MLX, the same on every device. ``operations`` are the primitives that
    this device dispatches, compiled kernels as one; ``nodes`` is their sum. ``dtypes`` counts primitives by the
    type of their first output, before kernels are compiled together. ``bytes`` are those of the checkpoint's parts.
    ``host`` is what building the graph takes; None in older records.
    """

    calls: dict[str, int]
    operations: dict[str, int]
    dtypes: dict[str, int]
    nodes: int
    bytes: dict[str, int] = field(default_factory=dict)
    host: HostWork | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """All of one workload in one session. Bytes and seconds; ``ttft_s`` one value per measured prefill.

    ``planted`` is the slowdown asked for by --plant-slowdown (0.1 = 10 %), 0 where none.
    ``checkpoint_digest`` names the checkpoint's bytes, ``token_digest`` the greedy tokens of a run:
    both must agree before two measurements are compared. ``prefill_reproducible`` says whether every prefill of the
    prompt ended in the same first token; where not, each session decodes from another KV cache of the same length.
    ``streamed_bytes`` are the weight bytes that one text token must read; ``copy_bandwidth`` what this machine's
    memory was seen to deliver, bytes per second. ``soft_tokens`` says where an image's soft tokens came from.
    """

    workload: str
    engine: str
    prompt_tokens: int
    generated_tokens: int
    runs: tuple[Run, ...]
    discarded: tuple[Run, ...]
    ttft_s: tuple[float, ...]
    peak_memory_bytes: int
    kv_bytes: int
    streamed_bytes: int
    checkpoint_digest: str
    token_digest: str
    planted: float = 0.0
    soft_tokens: str | None = None
    copy_bandwidth: float | None = None
    graph: Graph | None = None
    prefill_reproducible: bool = True

    @property
    def session_tpot_s(self) -> float:
        """Median time per output token over the runs that count, seconds: the session's one value."""
        ordered = sorted(run.tpot_s for run in self.runs)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
