"""Stand-ins for what tests must not depend on: machines, clocks, disks and real measurements."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gemma3n_perf.decode.types import Measurement, Run
from gemma3n_perf.hardware.types import Chip, Conditions, Stack
from gemma3n_perf.store.session_file import encode, header_json, measurement_json
from gemma3n_perf.workload.workload import Workload

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHIP = Chip("cpu-fake-2c", "cpu", "Fake CPU", cpu_cores=2, memory_bytes=8 * 2**30)
STACK = Stack("3.11.7", "Linux 6.1", "0.32.4", "0.7.10", "cpu", commit=COMMIT, dirty=False)
WORKLOAD = "nano/text/pp40-tg64"


def measurement(workload: str = WORKLOAD, tpot_s: float = 0.01, **changes: Any) -> Measurement:
    """Return a measurement of three runs around ``tpot_s`` seconds a token."""
    shape = Workload.parse(workload).shape
    runs = tuple(
        Run(tpot * shape.generate, shape.generate, (tpot,) * shape.generate, Conditions(load1=0.5, steal=0.0))
        for tpot in (0.99 * tpot_s, tpot_s, 1.01 * tpot_s)
    )
    made = Measurement(
        workload=workload,
        engine="mlx_vlm",
        prompt_tokens=shape.prompt,
        generated_tokens=shape.generate,
        runs=runs,
        discarded=(),
        ttft_s=(0.1, 0.11, 0.12),
        peak_memory_bytes=500_000_000,
        kv_bytes=2_000_000,
        streamed_bytes=30_000_000,
        checkpoint_digest="forged:1",
        token_digest="tokens:1",
    )
    return replace(made, **changes)


def document(
    session: str = "s1", *measurements: Measurement, chip: Chip = CHIP, stack: Stack = STACK, planted: float = 0.0
) -> dict[str, Any]:
    """Return pytest-benchmark's output for a session as this suite's plugin leaves it."""
    measured = measurements or (measurement(planted=planted),)
    benchmarks = []
    for one in measured:
        data = [run.tpot_s for run in one.runs]
        benchmarks.append(
            {
                "group": None,
                "name": f"bench_decode[{one.workload}]",
                "fullname": f"perf/bench_decode.py::bench_decode[{one.workload}]",
                "params": None,
                "param": None,
                "extra_info": {"gemma3n_perf": measurement_json(one)},
                "options": {"timer": "perf_counter", "min_rounds": 3, "warmup": False},
                "stats": {**_stats(data), "data": data, "iterations": 1},
            }
        )
    return {
        "machine_info": {
            "node": "somebodys-machine",
            "python_implementation": "CPython",
            "python_version": "3.11.7",
            "system": "Linux",
            "gemma3n_perf": header_json(chip, stack, session, planted),
        },
        "commit_info": {"id": stack.commit or "unversioned", "dirty": bool(stack.dirty), "project": "p"},
        "benchmarks": benchmarks,
        "datetime": f"2026-07-0{1 + len(session) % 9}T10:00:00+00:00",
        "version": "5.3.1",
    }


def write_session(folder: Path, number: int, session: str | None = None, **options: Any) -> Path:
    """Write session file ``number`` into ``folder`` as the store would name it; ``options`` as for ``document``."""
    made = document(session or f"s{number}", **options)
    stack = options.get("stack", STACK)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{number:04}_{(stack.commit or 'unversioned')[:12]}{'-dirty' if stack.dirty else ''}.json"
    path.write_bytes(encode(made))
    return path


def edited(data: bytes, path: str, value: Any) -> bytes:
    """Return JSON ``data`` with the value at a dotted ``path`` (``benchmarks.0.stats``) replaced, unchecked."""
    tree = json.loads(data)
    *parents, last = path.split(".")
    node = tree
    for name in parents:
        node = node[int(name)] if isinstance(node, list) else node[name]
    node[int(last) if isinstance(node, list) else last] = copy.deepcopy(value)
    return json.dumps(tree).encode()


def _stats(data: list[float]) -> Mapping[str, Any]:
    ordered, mean = sorted(data), sum(data) / len(data)
    names = ("stddev", "iqr", "iqr_outliers", "stddev_outliers")
    return {
        "min": ordered[0],
        "max": ordered[-1],
        "mean": mean,
        "median": ordered[len(ordered) // 2],
        "rounds": len(data),
        "q1": ordered[0],
        "q3": ordered[-1],
        "outliers": "0;0",
        "ld15iqr": ordered[0],
        "hd15iqr": ordered[-1],
        "ops": 1 / mean,
        "total": sum(data),
        **dict.fromkeys(names, 0),
    }
