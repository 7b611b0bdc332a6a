"""What the device itself says of a token: how long it computed, whatever the host did meanwhile.

Best counter first, and each says how coarse it is. On CUDA: CUPTI's records, in a process of its own; else NVML's busy
share, sampled over seconds. On a CPU: the time of MLX's own thread. On Apple: a Metal capture, by option, for a person
to open; it gives no number.
"""

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.errors import NotMeasuredError
from gemma3n_perf.hardware.shell import Run
from gemma3n_perf.profile.cupti import Recorded, TraceRequest
from gemma3n_perf.profile.rounds import LEAST_ROUNDS, estimate
from gemma3n_perf.profile.types import Estimate, Trace

CUPTI, NVML, THREADS, METAL = "CUPTI", "NVML", "thread times", "Metal capture"
TIMEOUT_S = 240.0
_NVML_BLOCK_S = 0.7
_TICK_S = 0.01
_LEAST_BLOCK_S = 0.25

Decode = Callable[[], float]
"""Decodes some tokens from the fixed position and returns the seconds per token."""


def in_package(code: str) -> str:
    """Return Python code that runs in another process and finds this package there."""
    return f"import sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r}); {code}"


def by_cupti(request: TraceRequest, run: Run) -> Trace:
    """Decode in a process of its own under CUPTI. Raises NotMeasuredError with its message."""
    code = in_package("from gemma3n_perf.profile.cupti import main; main()")
    done = run((sys.executable, "-P", "-c", code, msgspec.json.encode(request).decode()), TIMEOUT_S)
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
        estimate(np.divide(found.busy_s, request.tokens)),
        estimate(np.divide(found.span_s, request.tokens)),
        sum(found.kernels) / len(found.kernels) / request.tokens,
        "every kernel and copy by the GPU's clock; recording slows the host, not what runs on the GPU",
    )


def by_nvml(decode: Decode, busy_percent: Callable[[], float], clock: Clock, why: str) -> Trace:
    """Read the driver's busy share between decodes, each as long as it averages over. ``why`` is CUPTI's failure."""
    values = []
    decode()
    for _ in range(LEAST_ROUNDS):
        begin, taken = clock(), []
        while clock() - begin < _NVML_BLOCK_S:
            taken.append(decode())
        values.append(min(busy_percent() / 100, 1.0) * sum(taken) / len(taken))
    note = f"the driver's busy share, averaged over a second or so, gaps within it unseen; {CUPTI}: {why}"
    return Trace(NVML, estimate(values), note=note)


def by_threads(decode: Decode, tokens: int, thread_times: Callable[[], dict[int, float]], own: int) -> Trace:
    """On a CPU: seconds that the busiest thread besides this one computed, per token.

    A decode is of ``tokens`` tokens; ``own`` is this thread's id.
    """
    blocks = LEAST_ROUNDS + 2
    per_block = max(1, round(_LEAST_BLOCK_S / max(decode() * tokens, 1e-9)))
    marks = [thread_times()]
    for _ in range(blocks):
        for _ in range(per_block):
            decode()
        marks.append(thread_times())
    spent = {thread: seconds - marks[0].get(thread, 0.0) for thread, seconds in marks[-1].items() if thread != own}
    device = max(spent, key=lambda thread: spent[thread], default=own)
    if spent.get(device, 0.0) < blocks * _TICK_S:
        raise NotMeasuredError("no thread besides the host's computed", expected="MLX's thread of the CPU stream")
    values = [(b.get(device, 0.0) - a.get(device, 0.0)) / (per_block * tokens) for a, b in pairwise(marks)]
    return Trace(
        THREADS, estimate(values), note=f"processor time of MLX's own thread, in ticks of {1e3 * _TICK_S:.0f} ms"
    )


def capture_metal(decode: Decode, path: Path | None) -> Trace:
    """Write a Metal capture of one decode to ``path`` (.gputrace). Raises NotMeasuredError where Metal refuses."""
    import mlx.core as mx

    if path is None:
        raise NotMeasuredError(
            "Metal tells no busy time to a program",
            expected="a capture, for a person to open",
            remedy="MTL_CAPTURE_ENABLED=1 gemma3n-perf profile --parts trace --metal-capture FILE.gputrace",
        )
    try:
        mx.metal.start_capture(str(path))
        try:
            decode()
        finally:
            mx.metal.stop_capture()
    except RuntimeError as error:
        raise NotMeasuredError(
            f"Metal does not capture: {' '.join(str(error).split())}"[:300],
            expected="a Mac, and MTL_CAPTURE_ENABLED=1 in the environment",
        ) from error
    return Trace(METAL, None, note=f"{path.name}: open it in Xcode; it holds no number for this page")


def best(attempts: Sequence[Callable[[str], Trace]]) -> Trace:
    """Return the first that works; each is given why the one before did not. Raises NotMeasuredError with all."""
    reasons: list[str] = []
    for attempt in attempts:
        try:
            return attempt(reasons[-1] if reasons else "")
        except (NotMeasuredError, OSError) as error:
            reasons.append(error.found if isinstance(error, NotMeasuredError) else str(error))
    raise NotMeasuredError("; ".join(reasons) or "no counter of this device is known", expected="a device counter")


def gaps(trace: Trace, tpot_s: Estimate) -> Estimate | None:
    """Share of the time per token in which the device did nothing; None where its busy time is unknown."""
    busy = trace.busy_s
    if busy is None:
        return None
    pairs = ((busy.value, tpot_s.value), (busy.high, tpot_s.low), (busy.low, tpot_s.high))
    value, low, high = (max(0.0, 1 - spent / whole) for spent, whole in pairs)
    return Estimate(value, low, high, min(busy.rounds, tpot_s.rounds))
