"""NVIDIA GPUs by NVML: what they are, and what slowed them during a run."""

from collections.abc import Mapping
from typing import Any

from gemma3n_perf.hardware.system import Accelerator, System
from gemma3n_perf.hardware.types import Chip, Conditions, slug

# Bits of nvmlClocksEventReasons, nvml.h.
REASONS = {
    0x1: "gpu-idle",
    0x2: "applications-clocks",
    0x4: "sw-power-cap",
    0x8: "hw-slowdown",
    0x10: "sync-boost",
    0x20: "sw-thermal-slowdown",
    0x40: "hw-thermal-slowdown",
    0x80: "hw-power-brake",
    0x100: "display-clocks",
}
# nvmlPerfPolicyType: the causes for which NVML counts the time that the clocks were lowered.
_VIOLATIONS = {0: "sw-power-cap", 1: "thermal-violation", 5: "reliability-violation"}
_CLOCK_SM, _TEMPERATURE_GPU = 1, 0
# Limits are set in watts; anything nearer to the default is rounding.
_POWER_TOLERANCE_MW = 1000


class Gpu:
    """The GPU that MLX uses, through NVML. A reading the driver does not support is None."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        # What the binding raises on a driver too old for a call is no NVMLError.
        mismatch = getattr(nvml, "NVMLLibraryMismatchError", nvml.NVMLError)
        self._unsupported = (nvml.NVMLError, mismatch, AttributeError)

    @classmethod
    def find(cls, system: System, info: Mapping[str, str | int]) -> "Gpu | None":
        """Find MLX's device among NVML's by UUID, else by PCI bus: their order differs under CUDA_VISIBLE_DEVICES."""
        nvml = system.nvml()
        if nvml is None:
            return None
        for call, key in (("nvmlDeviceGetHandleByUUID", "uuid"), ("nvmlDeviceGetHandleByPciBusId", "pci_bus_id")):
            if key in info:
                try:
                    return cls(nvml, getattr(nvml, call)(str(info[key])))
                except nvml.NVMLError:
                    continue
        return None

    def ask(self, call: str, *arguments: Any) -> Any | None:
        """Return what an NVML device call gives, or None where it is not supported."""
        try:
            return getattr(self._nvml, call)(self._handle, *arguments)
        except self._unsupported:
            return None

    def power_cap_w(self) -> int | None:
        """Return the enforced power limit in watts where it differs from the board's default, else None."""
        enforced = self.ask("nvmlDeviceGetEnforcedPowerLimit")
        default = self.ask("nvmlDeviceGetPowerManagementDefaultLimit")
        if enforced is None or default is None or abs(enforced - default) <= _POWER_TOLERANCE_MW:
            return None
        return round(int(enforced) / 1000)

    def throttled_ns(self) -> dict[int, int]:
        """Return the nanoseconds that each cause has lowered the clocks for since the driver was loaded."""
        found = {policy: self.ask("nvmlDeviceGetViolationStatus", policy) for policy in _VIOLATIONS}
        return {policy: int(status.violationTime) for policy, status in found.items() if status is not None}

    def sample(self, before: Mapping[int, int], own: frozenset[int], system: System) -> Conditions:
        """Return the GPU's part of the conditions of a run, after it.

        ``before`` is ``throttled_ns`` at its start, ``own`` are the measuring processes.
        """
        clock, others = self.ask("nvmlDeviceGetClockInfo", _CLOCK_SM), self.others(own, system)
        return Conditions(
            gpu_clock_hz=None if clock is None else clock * 1e6,
            gpu_temperature_c=self.ask("nvmlDeviceGetTemperature", _TEMPERATURE_GPU),
            throttle_reasons=self._reasons(before),
            gpu_processes=None if others is None else len(others),
        )

    def _reasons(self, before: Mapping[int, int]) -> tuple[str, ...] | None:
        mask = self.ask("nvmlDeviceGetCurrentClocksEventReasons")
        if mask is None:
            mask = self.ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        throttled = self.throttled_ns()
        if mask is None and not throttled:
            return None
        found = {name for bit, name in REASONS.items() if (mask or 0) & bit}
        # The mask is of this instant, after the run; the counters cover all of it.
        found |= {_VIOLATIONS[policy] for policy, total in throttled.items() if total > before.get(policy, total)}
        return tuple(sorted(found))

    def others(self, own: frozenset[int], system: System) -> frozenset[int] | None:
        """Return the processes that compute on the GPU and are not ``own``; None where they cannot be told apart."""
        processes = self.ask("nvmlDeviceGetComputeRunningProcesses")
        if processes is None:
            return None
        leaders = [system.leader(int(process.pid)) for process in processes]
        # In a container the driver may give the host's ids, among which ours cannot be recognized.
        if None in leaders:
            return None
        return frozenset(leader for leader in leaders if leader is not None) - own


def chip(system: System, accelerator: Accelerator) -> Chip:
    """Return the GPU MLX uses, such as ``nvidia-h100-80gb-hbm3``.

    A power limit other than the board's default is part of the class (``-500w``), and so is a MIG slice, whose name
    CUDA gives. Where NVML cannot be used the class ends in ``-unknown``: a cap would go unseen.
    """
    gpu = Gpu.find(system, accelerator.info)
    mode = gpu.ask("nvmlDeviceGetMigMode") if gpu else None
    sliced = bool(mode and mode[0])
    name = (gpu and not sliced and gpu.ask("nvmlDeviceGetName")) or accelerator.info.get("device_name", "NVIDIA GPU")
    name = name.decode() if isinstance(name, bytes) else str(name)
    label = slug(name)
    label = label if label.startswith("nvidia-") else f"nvidia-{label}"
    if gpu is None:
        label += "-power-unknown"
    elif sliced and "mig" not in label.split("-"):
        label += "-slice-unknown"
    elif cap := gpu.power_cap_w():
        label += f"-{cap}w"
    cpus = system.affinity()
    # A slice has a part of the GPU's memory; a GB10 shares the CPU's, and NVML reports none.
    memory = gpu.ask("nvmlDeviceGetMemoryInfo") if gpu and not sliced else None
    memory_bytes = memory.total if memory else accelerator.info.get("total_memory")
    return Chip(
        chip_class=label,
        vendor="nvidia",
        name=name,
        gpu_cores=gpu.ask("nvmlDeviceGetNumGpuCores") if gpu else None,
        cpu_cores=len(cpus) if cpus else None,
        memory_bytes=None if memory_bytes is None else int(memory_bytes),
        architecture=accelerator.architecture,
    )


def driver(system: System) -> str | None:
    """Return the driver and the newest CUDA it runs, such as ``580.159.04 (CUDA 13.0)``."""
    nvml = system.nvml()
    if nvml is None:
        return None
    try:
        version = nvml.nvmlSystemGetDriverVersion()
        cuda = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    except nvml.NVMLError:
        return None
    version = version.decode() if isinstance(version, bytes) else version
    return f"{version} (CUDA {cuda // 1000}.{cuda % 1000 // 10})"
