"""``gemma3n-perf chip``: what this machine is, what runs on it and the conditions right now."""

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from gemma3n_perf.cli.options import add_json, write_json
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe, Limits, faults
from gemma3n_perf.hardware.stack import current_stack, installed, suite_checkout
from gemma3n_perf.hardware.system import System, this_machine
from gemma3n_perf.hardware.types import Chip, Conditions, Fault, Stack

HELP = "show this machine's chip class, software and conditions"
SCHEMA = 2
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
    add_json(parser, "what is known, null where it is not,")


def run(args: argparse.Namespace, out: TextIO) -> int:
    """Print what is found; always 0: a fault of the moment is a finding here and not a failure."""
    report = examine(this_machine())
    if not write_json(args.json, as_json(report).encode(), out):
        out.write(as_text(report))
    return 0


def examine(system: System, sleep: Callable[[float], None] = time.sleep, repo: Path | None = None) -> Report:
    """Detect the chip and the stack, and sample the conditions over a second in which nothing of ours runs."""
    chip = detect(system)
    stack = current_stack(repo or suite_checkout(), system=system)
    probe = ConditionProbe(system, os.getpid())
    probe.start()
    sleep(SAMPLE_S)
    conditions = probe.stop()
    limits = Limits.for_cores(os.cpu_count() or 1)
    return Report(SCHEMA, chip, stack, conditions, limits, faults(conditions, limits))


def as_json(report: Report) -> str:
    """Return the report as indented JSON and a newline."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def as_text(report: Report) -> str:
    """Return the report for a reader, ``unknown`` where the platform does not say."""
    facts = _facts(report)
    width = max(map(len, facts))
    lines = [*(f"{label:<{width}}  {text or 'unknown'}" for label, text in facts.items()), ""]
    if not report.faults:
        lines.append("Nothing here would discard a run.")
    for fault in report.faults:
        lines += [f"{fault.code}: {fault.found}", f"  next: {fault.remedy}"]
    return "\n".join(lines) + "\n"


def _facts(report: Report) -> dict[str, str | None]:
    chip, stack, now = report.chip, report.stack, report.conditions
    dirty = ", with changes" if stack.dirty else ""
    facts = {
        "chip class": chip.chip_class,
        "chip": chip.name,
        "model": f"{chip.model}, without a fan" if chip.fanless else chip.model,
        "GPU cores": _text(chip.gpu_cores),
        "CPU cores": _text(chip.cpu_cores),
        "memory": _text(chip.memory_bytes, "{:.1f} GiB", 2**30),
        "architecture": chip.architecture,
        "neural accelerator": _text(stack.neural_accelerator),
        "system": stack.os,
        "Python": stack.python,
        "MLX": f"{stack.mlx} ({stack.backend})",
        "wheel": stack.wheel,
        "mlx-vlm": stack.mlx_vlm,
        "driver": stack.driver,
        "knobs": " ".join(f"{name}={value}" for name, value in stack.knobs.items()) or "none",
        "suite": f"{stack.commit[:12]}{dirty}" if stack.commit else installed("gemma3n-perf"),
        "thermal state": now.thermal,
        "power source": now.power_source,
        "low-power mode": _text(now.low_power_mode),
        "power mode": stack.power_mode,
        "throttling": None if now.throttle_reasons is None else ", ".join(now.throttle_reasons) or "none",
        "load": _text(now.load1, "{:.2f}"),
        "steal": _text(now.steal, "{:.1%}"),
        "other processes": _text(now.foreign_cpu, "{:.1%} of all cores"),
        "memory pressure": _text(now.memory_pressure, "{:.0%}"),
        "CPU clock": _text(now.cpu_clock_hz, "{:.2f} GHz", 1e9),
        "GPU clock": _text(now.gpu_clock_hz, "{:.2f} GHz", 1e9),
        "GPU use": _text(now.gpu_use, "{:.0%}"),
        "GPU temperature": _text(now.gpu_temperature_c, "{:.0f} C"),
        "others on the GPU": _text(now.gpu_processes),
    }
    absent = {
        "GPU cores": chip.vendor == "cpu",
        "neural accelerator": chip.vendor != "apple",
        **dict.fromkeys(("model", "wheel", "power mode"), not stack.os.startswith("macOS")),
        "driver": stack.backend != "cuda",
        "GPU clock": chip.vendor == "cpu",
        "GPU use": chip.vendor != "apple",
        **dict.fromkeys(("GPU temperature", "others on the GPU"), chip.vendor != "nvidia"),
    }
    return {label: text for label, text in facts.items() if not absent.get(label)}


def _text(value: float | bool | None, form: str = "{}", unit: float = 1) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else form.format(value if unit == 1 else value / unit)
