"""What the harness costs: its timed decode against a bare loop over the same model, interleaved.

Opinion: a harness that slows what it measures measures itself. The bare loop is the shortest pipelined greedy
decode that can be written on mlx-vlm's model; both start from the same KV cache, in turns, in random order.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gemma3n_perf.decode.session import Clock, DecodeSession, Probe
from gemma3n_perf.workload.workload import Workload

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Overhead:
    """Paired seconds of ``tokens`` steps each; ``ratio`` is harness throughput over the bare loop's, with interval."""

    workload: str
    tokens: int
    harness_s: tuple[float, ...]
    bare_s: tuple[float, ...]
    ratio: float
    low: float
    high: float


def measure(
    model: Any, session: DecodeSession, workload: Workload, probe: Probe, *, pairs: int, seed: int = 1, note: Note
) -> Overhead:
    """Take ``pairs`` of one harness run and one bare run each; the session must be prepared.

    The ratio is the median over pairs of bare seconds over harness seconds; its 95 % interval is the sign
    test's (order statistics), which asks nothing of the noise's shape.
    """
    order = random.Random(seed)
    harness: list[float] = []
    bare: list[float] = []
    for pair in range(pairs):
        note(f"pair {pair + 1} of {pairs}")
        for arm in order.sample(("harness", "bare"), 2):
            if arm == "harness":
                harness.append(session.run(probe)[0].seconds)
            else:
                bare.append(_bare(model, session))
    ratios = np.sort(np.array(bare) / np.array(harness))
    low, high = sign_test_interval(len(ratios))
    return Overhead(
        str(workload), workload.shape.generate, tuple(harness), tuple(bare),
        float(np.median(ratios)), float(ratios[low]), float(ratios[high]),
    )  # fmt: skip


def sign_test_interval(n: int) -> tuple[int, int]:
    """Indices of the order statistics that hold the median of ``n`` values with at least 95 % confidence."""
    from scipy.stats import binom

    k = int(binom.ppf(0.025, n, 0.5))
    low = max(k - 1, 0)
    return low, n - 1 - low


def _bare(model: Any, session: DecodeSession) -> float:
    import mlx.core as mx

    language_model = model.language_model
    token, cache = session.bare_start()
    clock: Clock = time.perf_counter
    steps = session.workload.shape.generate
    begin = clock()
    ahead = mx.argmax(language_model(token[None], cache=cache).logits[:, -1], axis=-1)
    mx.async_eval(ahead)
    for i in range(steps):
        token = ahead
        if i + 1 < steps:
            ahead = mx.argmax(language_model(token[None], cache=cache).logits[:, -1], axis=-1)
            mx.async_eval(ahead)
        token.item()
    return clock() - begin
