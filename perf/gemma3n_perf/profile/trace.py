"""What the device itself says of a token: how long it computed, whatever the host did meanwhile.

Opinion: best counter first, and each says how coarse it is. On CUDA: CUPTI's records, in a process of its own; else
NVML's busy share, sampled over seconds. On a CPU: the time of MLX's own thread. On Apple: a Metal capture, by option,
for a person to open; it gives no number.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, estimate
from gemma3n_perf.profile.trace_worker import Recorded, TraceRequest
from gemma3n_perf.profile.types import Estimate, Trace

CUPTI, NVML, THREADS, METAL = "CUPTI", "NVML", "thread times", "Metal capture"
TIMEOUT_S = 240.0
_NVML_BLOCK_S = 0.7
_TICK_S = 0.01
_LEAST_BLOCK_S = 0.25


@dataclass(frozen=True, slots=True)
class Decoder:
    """Decodes ``tokens`` tokens a call, from the fixed position, and returns the seconds per token."""

    tokens: int
    run: Callable[[], float]


def by_cupti(order: TraceRequest, run: Run, python: str = sys.executable) -> Trace:
    """Decode in a process of its own under CUPTI. Raises NotMeasuredError with its words."""
    package = Path(__file__).resolve().parents[2]
    worker = Path(__file__).with_name("trace_worker.py")
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(package)!r}); runpy.run_path({str(worker)!r}, run_name='__main__')"
    )
    done = run((python, "-P", "-c", code, msgspec.json.encode(order).decode()), TIMEOUT_S)
    lines = [line for line in done.out.splitlines() if line.startswith("{")]
    if done.code != 0 or not lines:
        raise NotMeasuredError(f"the process that decodes under CUPTI ended with {done.code}: {done.last_output}")
    try:
        found = msgspec.json.decode(lines[-1].encode(), type=Recorded)
    except msgspec.MsgspecError as error:
        raise NotMeasuredError(f"the process under CUPTI answered with {lines[-1][:80]!r}") from error
    if found.error:
        raise NotMeasuredError(found.error)
    return Trace(
        CUPTI,
        estimate([value / order.tokens for value in found.busy_s]),
        estimate([value / order.tokens for value in found.span_s]),
        sum(found.kernels) / len(found.kernels) / order.tokens,
        "every kernel and copy by the GPU's clock; recording slows the host, not what runs on the GPU",
    )


def by_nvml(decoder: Decoder, busy_percent: Callable[[], float], clock: Clock, why: str) -> Trace:
    """Read the driver's busy share between decodes of at least the time it averages over. ``why`` CUPTI is not it."""
    values = []
    decoder.run()
    for _ in range(LEAST_ROUNDS):
        begin, taken = clock(), []
        while clock() - begin < _NVML_BLOCK_S:
            taken.append(decoder.run())
        values.append(min(busy_percent() / 100, 1.0) * sum(taken) / len(taken))
    note = f"the driver's busy share, averaged over a second or so, gaps within it unseen; {CUPTI}: {why}"
    return Trace(NVML, estimate(values), note=note)


def by_threads(decoder: Decoder, thread_times: Callable[[], dict[int, float]], own: int) -> Trace:
    """On a CPU: seconds that the busiest thread besides this one computed, per token. ``own`` is this thread's id."""
    blocks = LEAST_ROUNDS + 2
    per_block = max(1, round(_LEAST_BLOCK_S / max(decoder.run() * decoder.tokens, 1e-9)))
    marks = [thread_times()]
    for _ in range(blocks):
        for _ in range(per_block):
            decoder.run()
        marks.append(thread_times())
    spent = {thread: seconds - marks[0].get(thread, 0.0) for thread, seconds in marks[-1].items() if thread != own}
    if not spent or max(spent.values()) < blocks * _TICK_S:
        raise NotMeasuredError("no thread besides the host's computed", expected="MLX's thread of the CPU stream")
    device = max(spent, key=lambda thread: spent[thread])
    counted = per_block * decoder.tokens
    values = [(b.get(device, 0.0) - a.get(device, 0.0)) / counted for a, b in pairwise(marks)]
    return Trace(
        THREADS, estimate(values), note=f"processor time of MLX's own thread, in ticks of {1e3 * _TICK_S:.0f} ms"
    )


def capture_metal(decoder: Decoder, path: Path) -> Trace:
    """Write a Metal capture of one decode to ``path`` (.gputrace). Raises NotMeasuredError where Metal refuses."""
    import mlx.core as mx

    try:
        mx.metal.start_capture(str(path))
        try:
            decoder.run()
        finally:
            mx.metal.stop_capture()
    except RuntimeError as error:
        raise NotMeasuredError(
            f"Metal does not capture: {' '.join(str(error).split())}"[:300],
            expected="a Mac, and MTL_CAPTURE_ENABLED=1 in the environment",
        ) from error
    return Trace(METAL, None, note=f"{path.name}: open it in Xcode; it holds no number for this page")


def best(attempts: Sequence[Callable[[str], Trace]]) -> Trace:
    """Return the first that works; each is told why the one before did not. Raises NotMeasuredError with all."""
    reasons: list[str] = []
    for attempt in attempts:
        try:
            return attempt(reasons[-1] if reasons else "")
        except (NotMeasuredError, OSError) as error:
            reasons.append(error.found if isinstance(error, NotMeasuredError) else str(error))
    raise NotMeasuredError("; ".join(reasons) or "no counter of this device is known", expected="a device counter")


def gaps(trace: Trace, tpot_s: Estimate) -> Estimate | None:
    """Share of the time per token in which the device did nothing; None where its busy time is unknown."""
    if trace.busy_s is None:
        return None
    busy, n = trace.busy_s, min(trace.busy_s.rounds, tpot_s.rounds)
    return Estimate(
        max(0.0, 1 - busy.value / tpot_s.value),
        max(0.0, 1 - busy.high / tpot_s.low),
        max(0.0, 1 - busy.low / tpot_s.high),
        n,
    )
