"""``gemma3n-perf chip``: what this machine is, what runs on it and how it fares right now."""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.record import Recorder
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.system import System, this_machine
from gemma3n_perf.hardware.types import Chip, Conditions, Fault, Stack

HELP = "show this machine's chip class, software and conditions"
SCHEMA = 1
SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """All that the command found. As JSON the fields keep these names, null is unknown; a change raises ``schema``."""

    schema: int
    chip: Chip
    stack: Stack
    conditions: Conditions
    limits: Limits
    faults: tuple[Fault, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--json", action="store_true", help="print one JSON object, null where something is unknown")
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="also write all that the machine answered, for this suite's own tests",
    )


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print what is found; always 0, for a fault of the moment is an answer here and not a failure."""
    recorder = Recorder(this_machine()) if args.record else None
    report = examine(recorder.system if recorder else this_machine())
    out.write(as_json(report) if args.json else as_text(report))
    if recorder:
        _write(args.record, recorder.document(f"recorded on {report.chip.name}, {report.stack.os}"))
    return 0


def examine(system: System, sleep: Callable[[float], None] = time.sleep, repo: Path | None = None) -> Report:
    """Detect the chip and the stack, and sample the conditions over a second in which nothing of ours runs."""
    chip = detect(system)
    stack = current_stack(repo or suite_checkout(), system=system)
    probe = ConditionProbe.on(system, os.getpid())
    probe.start()
    sleep(SAMPLE_S)
    conditions = probe.stop()
    limits = Limits.for_cores(os.cpu_count() or 1)
    return Report(SCHEMA, chip, stack, conditions, limits, faults(conditions, limits))


def as_json(report: Report) -> str:
    """Return the report as indented JSON and a newline."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def as_text(report: Report) -> str:
    """Return the report for a reader, ``unknown`` where the platform does not tell."""
    lines = [*_table(_facts(report)), ""]
    if not report.faults:
        lines.append("Nothing here would discard a run.")
    for fault in report.faults:
        lines += [f"{fault.code}: {fault.found}", f"  next: {fault.remedy}"]
    return "\n".join(lines) + "\n"


def _facts(report: Report) -> Iterator[tuple[str, str | None]]:
    chip, stack, now = report.chip, report.stack, report.conditions
    yield "chip class", chip.chip_class
    yield "chip", chip.name
    if chip.vendor != "cpu":
        yield "GPU cores", _said(chip.gpu_cores)
    yield "CPU cores", _said(chip.cpu_cores)
    yield "memory", _said(chip.memory_bytes, lambda size: f"{size / 2**30:.1f} GiB")
    yield "architecture", chip.architecture
    if chip.vendor == "apple":
        yield "neural accelerator", _said(chip.neural_accelerator, _yes)
    yield "system", stack.os
    yield "Python", stack.python
    yield "MLX", f"{stack.mlx} ({stack.backend})"
    yield "mlx-vlm", stack.mlx_vlm
    if stack.backend == "cuda":
        yield "driver", stack.driver
    yield "knobs", " ".join(f"{name}={value}" for name, value in stack.knobs.items()) or "none"
    dirty = {None: "", True: ", with changes", False: ""}[stack.dirty]
    yield "suite", f"{stack.commit[:12]}{dirty}" if stack.commit else None
    yield "thermal state", now.thermal
    yield "power source", now.power_source
    yield "low-power mode", _said(now.low_power_mode, _yes)
    yield "throttling", _said(now.throttle_reasons, lambda reasons: ", ".join(reasons) or "none")
    yield "load", _said(now.load1, "{:.2f}".format)
    yield "steal", _said(now.steal, "{:.1%}".format)
    yield "other processes", _said(now.foreign_cpu, "{:.1%} of all cores".format)
    yield "memory pressure", _said(now.memory_pressure, "{:.0%}".format)
    yield "CPU clock", _said(now.cpu_clock_hz, _gigahertz)
    if chip.vendor == "nvidia":
        yield "GPU clock", _said(now.gpu_clock_hz, _gigahertz)
        yield "GPU temperature", _said(now.gpu_temperature_c, "{:.0f} C".format)
        yield "others on the GPU", _said(now.gpu_processes)


def _table(facts: Iterator[tuple[str, str | None]]) -> list[str]:
    rows = list(facts)
    width = max(len(label) for label, _ in rows)
    return [f"{label:<{width}}  {text or 'unknown'}" for label, text in rows]


def _said(value: Any, say: Callable[[Any], str] = str) -> str | None:
    return None if value is None else say(value)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _gigahertz(hertz: float) -> str:
    return f"{hertz / 1e9:.2f} GHz"


def _write(path: Path, document: dict[str, Any]) -> None:
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    except OSError as error:
        raise UsageError(
            f"the recording cannot be written to {path}: {error.strerror}", remedy="name a file that can be written"
        ) from error
