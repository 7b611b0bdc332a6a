"""The least time that a token can take: its weights read once, as fast as this memory could ever deliver them.

Opinion: a bound that could meet an honest program is worse than none, so every part of it errs on the fast side, and a
GPU whose peak is not in this table has none. No honest program comes near it; one that skips its weights passes it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np

from gemma3n_perf.decode.decoder import Clock
from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.errors import InvalidError, PerfError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.workload.load import streamed_bytes

PEAKS = {
    "nvidia-a100-sxm4-40gb": 1.56e12, "nvidia-a100-sxm4-80gb": 2.04e12, "nvidia-h100-80gb-hbm3": 3.35e12,
    "nvidia-h100-nvl": 3.9e12, "nvidia-h200": 4.8e12,
    "apple-m1": 68e9, "apple-m1-pro": 200e9, "apple-m1-max": 400e9, "apple-m1-ultra": 800e9,
    "apple-m2": 100e9, "apple-m2-pro": 200e9, "apple-m2-max": 400e9, "apple-m2-ultra": 800e9,
    "apple-m3": 100e9, "apple-m3-pro": 150e9, "apple-m3-max": 400e9, "apple-m3-ultra": 819e9,
    "apple-m4": 120e9, "apple-m4-pro": 273e9, "apple-m4-max": 546e9, "apple-m5": 153e9,
}  # fmt: skip
"""Bytes per second that vendors publish for the memory of a GPU, by class without its number of cores."""

LEFT_OUT = 1.25
"""Weights that the sparse layers multiply by zero may be skipped: up and down of 10 layers in 30, 15 % of all."""

READS = 2.0
"""A read alone may be this many times as fast as a copy, whose bytes read and written are both counted."""

_COPIED, _COPIES = 1 << 28, 20


def highest_bandwidth(chip: Chip, streamed: int, clock: Clock) -> float | None:
    """Bytes per second at which ``streamed`` bytes of weights cannot be read on this chip, or None: not known.

    On a CPU they may live in its caches. So each core's part of them is copied by one core, alone and at its best, and
    all cores together are taken to be no slower for sharing memory and caches.
    """
    if chip.vendor != "cpu":
        peak = PEAKS.get(re.sub(r"-\d+gpu\b.*", "", chip.chip_class))
        return None if peak is None else peak * LEFT_OUT
    cores = chip.cpu_cores or 1
    source = np.ones(max(min(streamed // cores, _COPIED), 1), dtype=np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(_COPIES):
        begin = clock()
        np.copyto(target, source)
        best = min(best, clock() - begin)
    return cores * READS * LEFT_OUT * 2 * source.nbytes / max(best, 1e-9)


def least_tpot_s(source: str, root: Path, chip: Chip, clock: Clock) -> float:
    """Seconds that a token of a checkpoint takes at least on this chip; 0 where nothing is known.

    What a checkpoint lacks is named when it is loaded, not here.
    """
    try:
        streamed = streamed_bytes(source, root)
    except (PerfError, OSError):
        return 0.0
    bandwidth = highest_bandwidth(chip, streamed, clock)
    return 0.0 if bandwidth is None else streamed / bandwidth


def possible(found: Mapping[str, Launch | PerfError], least_s: float) -> dict[str, Launch | PerfError]:
    """Put InvalidError in the place of each launch of which an arm, either one, is faster than ``least_s`` allows.

    Of blocks the middle one counts; the whole run counts alone.
    """
    return {
        name: one if isinstance(one, PerfError) else _impossible(one, least_s) or one for name, one in found.items()
    }


def _impossible(launch: Launch, least_s: float) -> InvalidError | None:
    for number, arm in enumerate(ARMS):
        times = [median(launch.tpot_s(arm)), *(launch.whole_s[number : number + 1] if launch.whole_s else ())]
        if min(times) < least_s:
            return InvalidError(
                f"the {arm} takes {1e3 * min(times):.3g} ms a token, and reading its weights {1e3 * least_s:.3g} ms",
                expected="a token that takes no less than its weights take to be read",
                remedy="look for results that are kept from one token to another, and for work outside the clock",
            )
    return None
