import io
import json
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.conditions import ConditionProbe
from studies.record_machine import Recorder, main
from tests.hardware.replay import ROOT_PID, Machine


def recording(machine: Machine) -> dict[str, Any]:
    """Record a machine while it is detected and sampled."""
    recorder = Recorder(machine.system)
    detect(recorder.system)
    probe = ConditionProbe(recorder.system, ROOT_PID)
    probe.start()
    machine.passes(1.0)
    probe.stop()
    document: dict[str, Any] = json.loads(json.dumps(recorder.document("here")))
    return document


@pytest.mark.parametrize("name", ["m1-ultra-48", "h200", "gb10", "h100-mig", "epyc-masked", "graviton3"])
def test_a_recording_replays_to_the_same_machine(name: str) -> None:
    """What was recorded is enough to detect the chip again."""
    machine = Machine(name)
    replayed = Machine(name)
    document = recording(machine)
    replayed.document = document
    replayed.commands, replayed.files = document["commands"], document["files"]
    if replayed.nvml is not None:
        replayed.nvml.results = document["nvml"]
    assert detect(replayed.system) == detect(machine.system)


def test_what_names_one_machine_is_left_out() -> None:
    """Serial numbers, UUIDs, process ids and container ids do not belong into a repository."""
    machine = Machine("h100")
    assert machine.nvml is not None
    machine.document["accelerator"]["info"]["uuid"] = "GPU-39d52d8d-06f2-1986-31e4-9e01ffdafda3"
    machine.nvml.results["nvmlDeviceGetComputeRunningProcesses"] = [{"pid": ROOT_PID, "usedGpuMemory": 5}]
    machine.files["/proc/self/cgroup"] = "0::/docker/0123456789abcdef0123456789abcdef\n"
    machine.commands |= {
        "pmset -g batt": " -InternalBattery-0 (id=4653155)\t100%; charged\n",
        "ioreg": '"IOPlatformUUID" = "ABC-DEF"\n"gpu-core-count" = 8\n"IOUserClientCreator" = "pid 4653, Secret App"\n',
        "pmgr": f'  "voltage-states5" = <{"fe" * 64}>\n  "voltage-states9" = <{"01" * 64}>\n',
        "system_profiler": json.dumps(
            {"SPDisplaysDataType": [{"sppci_cores": "8", "spdisplays_ndrvs": [{"serial-number": "fd626d62"}]}]}
        ),
    }
    recorder = Recorder(machine.system)
    detect(recorder.system)
    probe = ConditionProbe(recorder.system, ROOT_PID)
    probe.start()
    probe.stop()
    for command in (["pmset", "-g", "batt"], ["ioreg"], ["pmgr"], ["system_profiler"]):
        recorder.system.run(command)
    recorder.system.read("/proc/self/cgroup")
    text = json.dumps(recorder.document("here"))
    ids = ("39d52d8d", str(ROOT_PID) + ",", "0123456789abcdef", "4653155", "ABC-DEF", "fd626d62")
    for secret in (*ids, "Secret", "fefe"):
        assert secret not in text
    for kept in ("gpu-core-count", "sppci_cores", "0101"):
        assert kept in text


def test_a_call_that_is_not_supported_is_recorded_as_such() -> None:
    """Its code is what a replay raises again."""
    assert recording(Machine("gb10"))["nvml"]["nvmlDeviceGetMemoryInfo"] == {"error": 3}


def test_this_machine_is_recorded(tmp_path: Path) -> None:
    """The recording names no checkout, and what was found is printed."""
    out = io.StringIO()
    assert main([str(tmp_path / "here.json")], out) == 0
    document = json.loads((tmp_path / "here.json").read_text())
    assert document["accelerator"]["info"]["architecture"] in out.getvalue()
    assert not [command for command in document["commands"] if command.startswith("git")]
