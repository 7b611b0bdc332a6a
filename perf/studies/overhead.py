"""What the harness costs: its timed decode against a bare loop over the same model, interleaved.

``python -m studies.overhead`` measures and prints it.

A harness that slows what it measures measures itself. The bare loop is the shortest pipelined greedy
decode that can be written on mlx-vlm's model; both start from the same KV cache, in turns, in random order.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec
import numpy as np

from gemma3n_perf.decode import prompt
from gemma3n_perf.decode.decoder import Clock, Decoder, Probe
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.machine import open_machine
from gemma3n_perf.profile.rounds import sign_test_interval
from gemma3n_perf.store.files import write_over
from gemma3n_perf.workload import load
from gemma3n_perf.workload.presets import checkpoints_root
from gemma3n_perf.workload.workload import Workload, defaults
from studies import carry_out

FLOOR = 0.998
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
    model: Any, session: Decoder, workload: Workload, probe: Probe, *, pairs: int, seed: int = 1, note: Note
) -> Overhead:
    """Take ``pairs`` of one harness run and one bare run each; the session must be prepared.

    The ratio is the median over pairs of bare seconds over harness seconds; its 95 % interval is the sign
    test's (order statistics), which assumes nothing about the shape of the noise.
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


def _bare(model: Any, session: Decoder) -> float:
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


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m studies.overhead", description=__doc__)
    parser.add_argument("--workload", help="workload id (default: the chip's first)")
    parser.add_argument("--pairs", type=int, default=60, help="interleaved pairs of runs (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record, for instance "
                        "baselines/CHIP-CLASS/overhead.json")  # fmt: skip
    return parser.parse_args(argv)


def main(argv: Sequence[str], out: TextIO) -> int:
    """Measure and print the ratio. Raises UsageError and what loading raises."""
    args = _arguments(argv)
    if args.pairs < 6:
        raise UsageError(f"--pairs {args.pairs}", expected="6 or more: fewer give no 95 % interval")
    workload = Workload.parse(args.workload) if args.workload else defaults(detect().vendor)[0]
    with open_machine(sys.stderr) as machine:
        checkpoint = load.inspect(workload.checkpoint, checkpoints_root())
        request = prompt.make(workload, checkpoint)
        model = load.load(checkpoint, with_towers=request.pixels is not None)
        session = Decoder(MlxVlmEngine(model), workload, request, clock=time.perf_counter, device=MlxDevice())
        session.prepare()
        session.run(machine.probe)
        found = measure(model, session, workload, machine.probe, pairs=args.pairs, note=machine.note)
    print(
        f"{workload}: harness throughput is {found.ratio:.4f} of a bare loop's [{found.low:.4f}, {found.high:.4f}], "
        f"{args.pairs} interleaved pairs of {found.tokens} tokens",
        file=out,
    )
    if args.json:
        record = {
            "schema": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "chip": machine.chip,
            "stack": machine.stack,
            "overhead": found,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_over(args.json, msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    return 0 if found.high >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(carry_out(main))
