"""What a machine is, what runs on it, and how it fared. Facts only; ``None`` means unknown."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Chip:
    """The hardware two absolute numbers must share to be comparable.

    ``chip_class`` never depends on the operating system, Python, clock of the day or free memory.
    Sizes are bytes.
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


@dataclass(frozen=True, slots=True)
class Stack:
    """The software of one arm. ``knobs`` are the MLX_* variables set in the environment."""

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


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the machine fared around one run. Fractions are 0..1, clocks hertz, temperatures Celsius.

    ``None`` is unknown: the platform does not tell, and nothing is guessed.
    ``steal`` and ``foreign_cpu`` are fractions of all cores over the sampled interval: time the
    hypervisor took, and time that processes other than the measuring ones used.
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


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason why a run under these conditions does not count, and what to do about it."""

    code: str
    found: str
    remedy: str
