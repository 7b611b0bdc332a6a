import argparse
import io
import json
from typing import Any

from gemma3n_perf.cli import chip
from tests.hardware.replay import Machine


def report(machine: Machine, **used: float) -> chip.Report:
    """Examine a recorded machine over a second in which its CPUs are used so."""
    return chip.examine(machine.system, sleep=lambda seconds: machine.passes(seconds, **used))


def run(*arguments: str) -> str:
    """Run the command on this machine and return what it prints."""
    parser = argparse.ArgumentParser()
    chip.add_arguments(parser)
    out = io.StringIO()
    assert chip.run(parser.parse_args(arguments), out) == 0
    return out.getvalue()


def shape(value: Any) -> Any:
    """Return the names within a JSON value, without its values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items() if key not in ("knobs", "packages")}
    return [shape(item) for item in value[:1]] if isinstance(value, list) else None


def test_json_has_the_documented_fields() -> None:
    """The names are a contract: a change of them must raise the schema's number."""
    found = json.loads(chip.as_json(report(Machine("m5-max"), foreign=2.0)))
    assert found["schema"] == 2
    assert shape(found) == {
        "schema": None,
        "chip": dict.fromkeys(
            [
                "chip_class",
                "vendor",
                "name",
                "gpu_cores",
                "cpu_cores",
                "memory_bytes",
                "architecture",
                "neural_accelerator",
                "os_version",
                "host",
                "model",
                "fanless",
                "working_set_bytes",
            ]
        ),
        "stack": {
            **dict.fromkeys(["python", "os", "mlx", "mlx_vlm", "backend", "commit", "dirty", "driver"]),
            **dict.fromkeys(["power_mode", "wheel", "neural_accelerator"]),
        },
        "conditions": {
            **dict.fromkeys(["thermal", "power_source", "low_power_mode", "load1", "steal", "foreign_cpu"]),
            **dict.fromkeys(["memory_pressure", "cpu_clock_hz", "gpu_clock_hz", "gpu_temperature_c", "gpu_processes"]),
            **dict.fromkeys(["throttle_reasons", "gpu_use", "foreign_gpu", "gpu_speed"]),
        },
        "limits": dict.fromkeys(
            ["steal", "foreign_cpu", "memory_pressure", "gpu_processes", "foreign_gpu", "gpu_speed"]
        ),
        "faults": [dict.fromkeys(["code", "found", "remedy"])],
    }


def test_json_tells_unknown_as_null() -> None:
    """A masked cloud machine tells little, and nothing is made up."""
    conditions = json.loads(chip.as_json(report(Machine("epyc-masked"))))["conditions"]
    for name in ("thermal", "power_source", "low_power_mode", "throttle_reasons", "cpu_clock_hz", "gpu_clock_hz"):
        assert conditions[name] is None
    assert conditions["steal"] == 0.0


def test_text_of_a_mac_in_order() -> None:
    """Class, chip, software and conditions, then the all-clear."""
    text = chip.as_text(report(Machine("m5-max")))
    for line in (
        "chip class          apple-m5-max-40gpu",
        "GPU cores           40",
        "memory              128.0 GiB",
        "neural accelerator  yes",
        "system              macOS 26.3.1",
        "thermal state       nominal",
        "power source        ac",
        "low-power mode      no",
        "throttling          unknown",
        "GPU clock           unknown",
        "GPU use             0%",
        "Nothing here would discard a run.",
    ):
        assert line in text.splitlines()


def test_text_of_a_gpu_names_driver_clocks_and_reasons() -> None:
    """What NVML tells is shown in readable units."""
    text = chip.as_text(report(Machine("h100")))
    for line in (
        "driver             580.159.04 (CUDA 13.0)",
        "throttling         gpu-idle",
        "GPU clock          0.34 GHz",
        "GPU temperature    28 C",
        "others on the GPU  0",
    ):
        assert line in text.splitlines()


def test_faults_come_with_remedies() -> None:
    """A busy machine is told what would discard its runs, and what to do."""
    lines = chip.as_text(report(Machine("epyc-masked"), foreign=1.0)).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("foreign-cpu: other processes used 49.5%"))
    assert lines[at + 1].startswith("  next: stop what runs beside")
    assert "Nothing here would discard a run." not in lines


def test_the_command_on_this_machine() -> None:
    """It prints a readable JSON object."""
    assert json.loads(run("--json"))["chip"]["chip_class"]
