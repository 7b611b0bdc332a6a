"""What a machine is, what runs on it, and the conditions around a run. Facts only; ``None`` means unknown."""

import re
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Chip:
    """The hardware two absolute numbers must share to be comparable.

    ``chip_class`` never depends on the operating system, Python, clock of the day or free memory.
    Sizes are bytes. ``model``, ``fanless`` and ``working_set_bytes``, what Metal keeps resident at most, are a Mac's.
    ``host`` tells machines of one class apart, see ``chip.host_id``; it is compared with nothing.
    """

    chip_class: str
    vendor: str
    name: str
    gpu_cores: int | None = None
    cpu_cores: int | None = None
    memory_bytes: int | None = None
    architecture: str | None = None
    neural_accelerator: bool | None = None
    os_version: str | None = None
    host: str | None = None
    model: str | None = None
    fanless: bool | None = None
    working_set_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """The software of one arm. ``knobs`` are the MLX_* variables set in the environment.

    Of a Mac alone: ``power_mode`` (low, automatic or high); ``wheel``, the platform that MLX's wheel was built for: one
    for macosx_26_0 carries other kernels than one for macosx_14_0 under the same version; and ``neural_accelerator``,
    whether MLX takes its kernels for the GPU's neural accelerators.
    """

    python: str
    os: str
    mlx: str
    mlx_vlm: str | None
    backend: str
    knobs: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    dirty: bool | None = None
    driver: str | None = None
    power_mode: str | None = None
    wheel: str | None = None
    neural_accelerator: bool | None = None


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of the machine around one run. ``None`` is unknown: the platform does not report it.

    ``thermal``             thermal pressure as macOS names it: ``nominal``, ``moderate``, ``heavy``, ...
    ``power_source``        ``ac``, ``battery`` or ``ups``
    ``throttle_reasons``    what lowered the clocks, by NVML's names, and ``cpu-thermal``
    ``steal``               share of all cores that the hypervisor took over the sampled interval, 0..1
    ``foreign_cpu``         share of all cores that processes other than the measuring ones used, 0..1
    ``memory_pressure``     share of the interval in which tasks waited for memory, or macOS's level as 0, 0.5 or 1
    ``..._hz``, ``..._c``   clocks in hertz, temperatures in Celsius
    ``gpu_processes``       number of other processes that compute on the GPU
    ``gpu_use``             share of the interval in which the GPU worked, 0..1 (Macs)
    ``foreign_gpu``         share of time that the GPU worked for other processes lately, 0..1 (Macs)
    ``gpu_speed``           speed of the GPU against the first interval: of its clock, or of a fixed computation (Macs)
    """

    thermal: str | None = None
    power_source: str | None = None
    low_power_mode: bool | None = None
    throttle_reasons: tuple[str, ...] | None = None
    load1: float | None = None
    steal: float | None = None
    foreign_cpu: float | None = None
    memory_pressure: float | None = None
    cpu_clock_hz: float | None = None
    gpu_clock_hz: float | None = None
    gpu_temperature_c: float | None = None
    gpu_processes: int | None = None
    gpu_use: float | None = None
    foreign_gpu: float | None = None
    gpu_speed: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason why a run does not count or a machine is not fit to measure, and what to do about it."""

    code: str
    found: str
    remedy: str


def slug(text: str) -> str:
    """Return a name as part of a chip class: lower case, all but letters, digits and inner dots as single hyphens."""
    plain = re.sub(r"\((?:r|tm|c)\)|[®™©]", " ", text.lower())
    return re.sub(r"(?:[^a-z0-9.]|\.(?![0-9a-z])|(?<![0-9a-z])\.)+", "-", plain).strip("-")
