"""What this machine's memory delivers: the ceiling beside which a throughput is read.

A token must read its weights once, so streamed bytes over this bandwidth is the least time it can take.
"""

from typing import Any

import numpy as np

from gemma3n_perf.decode.decoder import Clock

_CPU_BYTES, _GPU_BYTES = 1 << 28, 1 << 30


def copy_bandwidth(clock: Clock, *, repeats: int = 5) -> float:
    """Best of ``repeats`` large copies on MLX's default device, bytes read plus written per second.

    On a CPU numpy copies: MLX's CPU kernels do not reach the memory's speed.
    """
    import mlx.core as mx

    copy = _cpu_copy if mx.default_device().type == mx.DeviceType.cpu else _gpu_copy
    best = 0.0
    run, moved = copy()
    for _ in range(repeats + 1):
        begin = clock()
        run()
        best = max(best, moved / (clock() - begin))
    return best


def _cpu_copy() -> tuple[Any, int]:
    source = np.arange(_CPU_BYTES // 8, dtype=np.float64)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source), 2 * _CPU_BYTES


def _gpu_copy() -> tuple[Any, int]:
    import mlx.core as mx

    chain = 8
    source = mx.random.normal((_GPU_BYTES // 4,))
    mx.eval(source)

    def run() -> None:
        # Chained, so that one dispatch is amortised over several passes; a negation cannot be elided.
        value = source
        for _ in range(chain):
            value = mx.negative(value)
            mx.async_eval(value)
        mx.eval(value)

    return run, 2 * _GPU_BYTES * chain
