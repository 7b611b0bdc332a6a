"""A process that decodes under CUPTI and prints what the GPU did, as one line of JSON: ``python -P trace_worker.py``.

Recording starts before MLX is imported, for CUDA graphs that were made before are not recorded node by node.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec


class TraceRequest(msgspec.Struct, frozen=True):
    """What to decode: ``blocks`` of ``tokens`` each. ``source`` is a preset, folder or hub id; ``root`` the forged."""

    workload: str
    source: str
    root: str
    blocks: int
    tokens: int


class Recorded(msgspec.Struct, frozen=True):
    """Per block, seconds and kernels; or ``error``."""

    busy_s: tuple[float, ...] = ()
    span_s: tuple[float, ...] = ()
    kernels: tuple[int, ...] = ()
    error: str | None = None


def record(order: TraceRequest) -> Recorded:
    """Decode and read the records of every block. Raises what loading raises, NotMeasuredError."""
    from gemma3n_perf.profile.cupti import Cupti, busy

    cupti = Cupti.open()
    session, engine = _session(order)
    found = []
    for block in range(order.blocks + 1):
        token, _ = session.bare_start()
        _settle()
        cupti.collect()  # what rewinding copies is no part of a token
        _decode(engine, token, order.tokens)
        taken = cupti.collect()
        if block:  # the first one warms
            found.append(busy(taken))
    return Recorded(
        tuple(one.busy_s for one in found), tuple(one.span_s for one in found), tuple(one.kernels for one in found)
    )


def _decode(engine: Any, token: Any, tokens: int) -> None:
    import mlx.core as mx

    for _ in range(tokens):
        last, token = token, engine.step(token)
        mx.async_eval(token)
        last.item()
    token.item()
    _settle()


def _settle() -> None:
    import mlx.core as mx

    mx.synchronize()


def _session(order: TraceRequest) -> tuple[Any, Any]:
    import time

    from gemma3n_perf.decode import prompt
    from gemma3n_perf.decode.decoder import DecodeSession, MlxDevice
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
    from gemma3n_perf.workload import load
    from gemma3n_perf.workload.workload import Workload

    workload = Workload.parse(order.workload)
    checkpoint = load.inspect(order.source, Path(order.root))
    asked = prompt.make(workload, checkpoint)
    model = load.load(checkpoint, with_towers=asked.pixels is not None)
    engine = MlxVlmEngine(model)
    session = DecodeSession(engine, workload, asked, clock=time.perf_counter, device=MlxDevice())
    session.prepare()
    return session, engine


def main() -> int:
    """Read an order from the first argument, print what was recorded."""
    out = sys.stdout
    sys.stdout = sys.stderr  # what libraries print must not mix with the answer
    try:
        found = record(msgspec.json.decode(sys.argv[1].encode(), type=TraceRequest))
    except Exception as error:
        found = Recorded(error=f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
    print(msgspec.json.encode(found).decode(), file=out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
