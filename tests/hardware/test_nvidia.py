from typing import Any

import pytest

from gemma3n_perf.hardware import nvidia
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.nvidia import Gpu
from tests.hardware.replay import ROOT_PID, Machine, recorded

OWN = frozenset({ROOT_PID})


def h100(**results: Any) -> tuple[Machine, Gpu]:
    """Return a recorded H100 on which some NVML calls answer otherwise."""
    machine = Machine("h100")
    assert machine.nvml is not None
    machine.nvml.results |= results
    gpu = Gpu.find(machine.system, machine.system.accelerator().info)
    assert gpu is not None
    return machine, gpu


def processes(*pids: int) -> dict[str, Any]:
    """Return NVML's answer about these compute processes."""
    return {"nvmlDeviceGetComputeRunningProcesses": [{"pid": pid, "usedGpuMemory": 2**30} for pid in pids]}


def test_all_facts_of_an_h100() -> None:
    """NVML tells name, CUDA cores and memory; MLX the architecture."""
    chip = detect(recorded("h100"))
    assert (chip.vendor, chip.name, chip.gpu_cores) == ("nvidia", "NVIDIA H100 80GB HBM3", 16896)
    assert (chip.memory_bytes, chip.architecture, chip.cpu_cores) == (81559 * 2**20, "sm_90", 16)


def test_a_gb10_shares_the_cpus_memory() -> None:
    """NVML supports neither memory nor power limits there; MLX tells the memory."""
    assert detect(recorded("gb10")).memory_bytes == 127600748 * 1024


def test_a_slice_tells_its_own_memory() -> None:
    """The board's memory is not the slice's."""
    assert detect(recorded("h100-mig")).memory_bytes == 9984 * 2**20


def test_a_slice_that_cuda_does_not_name_is_unknown() -> None:
    """A slice must not be taken for the whole board."""
    machine = Machine("h100-mig")
    machine.document["accelerator"]["info"]["device_name"] = "NVIDIA H100 80GB HBM3"
    assert detect(machine.system).chip_class == "nvidia-h100-80gb-hbm3-slice-unknown"


def test_without_nvml_the_power_limit_is_unknown() -> None:
    """A capped board would otherwise pass for an uncapped one."""
    machine = Machine("h100")
    machine.nvml = None
    chip = detect(machine.system)
    assert (chip.chip_class, chip.name) == ("nvidia-h100-80gb-hbm3-power-unknown", "NVIDIA H100 80GB HBM3")


def test_a_limit_a_milliwatt_off_is_no_cap() -> None:
    """Rounding by the driver makes no class."""
    machine, _ = h100(nvmlDeviceGetEnforcedPowerLimit=699_999)
    assert detect(machine.system).chip_class == "nvidia-h100-80gb-hbm3"


def test_the_class_does_not_depend_on_clocks_or_driver() -> None:
    """Clock of the day and driver version leave the class as it was."""
    machine, _ = h100(**{"nvmlDeviceGetClockInfo 1": 1980, "nvmlSystemGetDriverVersion": "590.1"})
    assert detect(machine.system).chip_class == "nvidia-h100-80gb-hbm3"


def test_old_bindings_answer_in_bytes() -> None:
    """Name and driver are the same."""
    machine, _ = h100()
    assert machine.nvml is not None
    machine.nvml.results |= {"nvmlDeviceGetName": b"NVIDIA H100 PCIe", "nvmlSystemGetDriverVersion": b"580.1"}
    assert detect(machine.system).chip_class == "nvidia-h100-pcie"
    assert nvidia.driver(machine.system) == "580.1 (CUDA 13.0)"


def test_an_unknown_device_is_not_found() -> None:
    """Neither UUID nor PCI bus matches any of NVML's."""
    machine, _ = h100()
    assert machine.nvml is not None
    machine.nvml.results |= {"nvmlDeviceGetHandleByUUID": {"error": 6}, "nvmlDeviceGetHandleByPciBusId": {"error": 6}}
    assert Gpu.find(machine.system, machine.system.accelerator().info) is None


def test_a_sample_of_an_idle_board() -> None:
    """Clocks are in hertz; idling is a reason like any other in the record."""
    machine, gpu = h100()
    sample = gpu.sample(gpu.throttled_ns(), OWN, machine.system)
    assert (sample.gpu_clock_hz, sample.gpu_temperature_c, sample.throttle_reasons) == (345e6, 28, ("gpu-idle",))
    assert sample.gpu_processes == 0


def test_every_reason_in_the_mask_is_named() -> None:
    """NVML's bits of nvml.h: heat, brake and power cap at once."""
    machine, gpu = h100(nvmlDeviceGetCurrentClocksEventReasons=0x4 | 0x8 | 0x40 | 0x80)
    sample = gpu.sample({}, OWN, machine.system)
    assert sample.throttle_reasons == ("hw-power-brake", "hw-slowdown", "hw-thermal-slowdown", "sw-power-cap")


def test_heat_during_the_run_is_seen_after_it_has_passed() -> None:
    """The counter of held-down time grew, though the mask of the moment is clear."""
    machine, gpu = h100(nvmlDeviceGetCurrentClocksEventReasons=0)
    before = gpu.throttled_ns()
    assert machine.nvml is not None
    machine.nvml.results["nvmlDeviceGetViolationStatus 1"] = {"referenceTime": 0, "violationTime": 5_000_000}
    assert gpu.sample(before, OWN, machine.system).throttle_reasons == ("thermal-violation",)
    assert gpu.sample(gpu.throttled_ns(), OWN, machine.system).throttle_reasons == ()


def test_a_driver_that_knows_only_throttle_reasons_is_asked_for_those() -> None:
    """The call was renamed; the bits are the same."""
    machine, gpu = h100(
        nvmlDeviceGetCurrentClocksEventReasons={"error": 13}, nvmlDeviceGetCurrentClocksThrottleReasons=0x20
    )
    assert gpu.sample({}, OWN, machine.system).throttle_reasons == ("sw-thermal-slowdown",)


def test_a_driver_that_tells_no_reasons_leaves_them_unknown() -> None:
    """Unknown is not the same as none."""
    machine, gpu = h100()
    assert machine.nvml is not None
    machine.nvml.results = {}
    sample = gpu.sample({}, OWN, machine.system)
    assert (sample.throttle_reasons, sample.gpu_clock_hz, sample.gpu_temperature_c, sample.gpu_processes) == (None,) * 4


def test_a_driver_older_than_the_binding_leaves_processes_unknown() -> None:
    """The binding raises an error of its own for a call the driver lacks."""
    machine, gpu = h100(nvmlDeviceGetComputeRunningProcesses={"error": "mismatch"})
    assert gpu.sample({}, OWN, machine.system).gpu_processes is None


@pytest.mark.parametrize(
    ("pids", "alive", "expected"),
    [
        ((ROOT_PID,), {}, 0),
        ((ROOT_PID, 7), {7: 7}, 1),
        ((7, 8, 9), {7: 7, 8: 7, 9: 9}, 2),
        ((101,), {101: ROOT_PID}, 0),
        ((ROOT_PID, 31337), {}, None),
    ],
    ids=["ours", "another", "threads of one", "a thread of ours", "ids of another namespace"],
)
def test_other_processes_are_counted_where_ids_can_be_told_apart(
    pids: tuple[int, ...], alive: dict[int, int], expected: int | None
) -> None:
    """Drivers answer with thread ids and, in containers, with the host's ids."""
    machine, gpu = h100(**processes(*pids))
    machine.alive = alive
    assert gpu.sample({}, OWN, machine.system).gpu_processes == expected
