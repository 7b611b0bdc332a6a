"""``gemma3n-perf overhead``: the harness against a bare loop over the same model, interleaved."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec

from gemma3n_perf.decode import prompt
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.session import DecodeSession, MlxDevice
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe
from gemma3n_perf.hardware.machine import keep_awake, measuring_lock
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.system import this_machine
from gemma3n_perf.measure import overhead
from gemma3n_perf.measure.progress import Progress
from gemma3n_perf.store.files import write_over
from gemma3n_perf.workload import cache, load
from gemma3n_perf.workload.workload import Workload, defaults

HELP = "measure what the harness itself costs"
FLOOR = 0.998


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--workload", help="workload id (default: the chip's first)")
    parser.add_argument("--pairs", type=int, default=60, help="interleaved pairs of runs (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record, for instance "
                        "baselines/CHIP-CLASS/overhead.json")  # fmt: skip


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Measure and print the ratio. Raises UsageError and what loading raises."""
    if args.pairs < 6:
        raise UsageError(f"--pairs {args.pairs}", expected="6 or more: fewer give no 95 % interval")
    chip = detect()
    workload = Workload.parse(args.workload) if args.workload else defaults(chip.vendor)[0]
    progress = Progress(sys.stderr)
    with measuring_lock(), keep_awake():
        checkpoint = load.inspect(workload.checkpoint, cache.checkpoints_root())
        asked = prompt.make(workload, checkpoint)
        model = load.load(checkpoint, with_towers=asked.pixels is not None)
        session = DecodeSession(MlxVlmEngine(model), workload, asked, clock=time.perf_counter, device=MlxDevice())
        session.prepare()
        probe = ConditionProbe.on(this_machine(), os.getpid())
        session.run(probe)
        found = overhead.measure(model, session, workload, probe, pairs=args.pairs, note=progress.note)
        progress.clear()
    print(
        f"{workload}: harness throughput is {found.ratio:.4f} of a bare loop's [{found.low:.4f}, {found.high:.4f}], "
        f"{args.pairs} interleaved pairs of {found.tokens} tokens",
        file=out,
    )
    if args.json:
        record = {
            "schema": 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "chip": chip,
            "stack": current_stack(suite_checkout()),
            "overhead": found,
        }
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_over(args.json, msgspec.json.format(msgspec.json.encode(record)) + b"\n")
    return 0 if found.high >= FLOOR else 1
