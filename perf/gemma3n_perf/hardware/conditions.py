"""The state of the machine around a run, and whether a run under such conditions counts.

Opinion: conditions are read, never guessed, and what the platform does not report is never a fault. The limits are set
to catch one other busy process while letting an ordinary idle machine, with its daemons and a noisy hypervisor, pass.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from gemma3n_perf.hardware import apple, apple_gpu, linux
from gemma3n_perf.hardware.nvidia import Gpu
from gemma3n_perf.hardware.system import CpuTimes, System
from gemma3n_perf.hardware.types import Conditions, Fault

# The kernel counts CPU time in ticks of 10 ms: a difference may be one tick too high.
TICK_S = 0.01
# The commands of macOS take 10 to 30 ms each, and what they report changes slowly.
SLOW_EVERY_S = 5.0
# A Mac's GPU lowers its clock soon after its last work. How soon Apple does not say.
CLOCKS_DOWN_S = 0.002
# Under this many core-seconds, ticks say too little to be of use.
MINIMUM_CORE_S = 0.05
# Reasons that are no fault of the moment: an idle clock after the run; settings; and the power cap, which is the
# board's working point under load and, where changed, part of the chip class.
HARMLESS_REASONS = frozenset({"gpu-idle", "applications-clocks", "display-clocks", "sync-boost", "sw-power-cap"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may suffer and still count. Fractions are of all cores over the run.

    ``steal``: a burst of the host's other guests. Over 122 seconds of a 2-core cloud machine with about one core busy,
    steal was 0.010 at the median, 0.055 at the ninth decile and 0.225 at most; on another hour of it 0.06 to 0.07 was
    ordinary. Steal that a host always has is part of the spread between its sessions, which the judge reads.
    ``foreign_cpu``: over 76 quiet seconds the daemons of that machine took 0.005 on average and 0.026 at most, where
    one compiler takes 0.50; see ``for_cores``.
    ``memory_pressure``: tasks waited for memory for a twentieth of the time (Linux), or the kernel warns (macOS: 0.5).
    ``gpu_processes``: another process on the GPU takes turns with ours.
    ``foreign_gpu``: a Mac's window server draws now and then; from here on something else computes.
    ``gpu_speed``: less is throttling, whatever the clock of a Mac does by itself between prefill and decode.
    """

    steal: float = 0.15
    foreign_cpu: float = 0.10
    memory_pressure: float = 0.05
    gpu_processes: int = 0
    foreign_gpu: float = 0.10
    gpu_speed: float = 0.8

    @classmethod
    def for_cores(cls, cores: int) -> "Limits":
        """Return limits under which one foreign compiler is seen on up to 48 cores; on more, 2 % of them is noise."""
        return cls(foreign_cpu=max(0.02, min(0.10, 0.75 / cores)))


class _Start(NamedTuple):
    time_s: float
    cpu: CpuTimes | None
    own_s: float
    stall_s: float | None
    throttles: int | None
    throttled_ns: dict[int, int]


class _Slow(NamedTuple):
    read_at_s: float
    thermal: str | None
    power_source: str | None
    low_power_mode: bool | None
    memory_pressure: float | None
    gpu_s: Mapping[int, float] | None
    gpu_use: float | None
    foreign_gpu: float | None


class ConditionProbe:
    """Reads conditions around one run at a time: ``start()``, the run, ``stop()``.

    ``root`` is the process whose whole tree counts as ours; in a worker, its parent. The GPU that MLX uses is read as
    well, if NVML knows it. Both calls are outside the timed region: together they take about 1 ms on Linux, plus a few
    NVML calls, and on macOS some 100 ms every 5 s.
    """

    def __init__(self, system: System, root: int) -> None:
        self._system = system
        self._root = root
        accelerator = system.accelerator()
        self._gpu = Gpu.find(system, accelerator.info) if accelerator.backend == "cuda" else None
        self._mac = apple_gpu.Gpu(system) if accelerator.backend == "metal" else None
        self._started: _Start | None = None
        self._ended_s = float("-inf")
        self._slow: _Slow | None = None

    def start(self) -> bool:
        """Begin an interval; a second start begins anew. Returns whether a Mac's GPU has had time to clock down."""
        system = self._system
        throttled = self._gpu.throttled_ns() if self._gpu else {}
        if self._slow is None:
            self._slow = self._read_slowly()
        own = _own_seconds(system, system.tree(self._root))
        stall, throttles = linux.memory_stall_s(system), linux.cpu_throttles(system)
        if self._mac:
            self._mac.begin()
        self._started = _Start(system.clock(), system.cpu_times(), own, stall, throttles, throttled)
        return self._mac is not None and self._started.time_s - self._ended_s > CLOCKS_DOWN_S

    def stop(self) -> Conditions:
        """End the interval and return how it went. Raises RuntimeError without a start."""
        started, system = self._started, self._system
        if started is None:
            raise RuntimeError("ConditionProbe.stop() without start()")
        mac = self._mac.end() if self._mac else apple_gpu.Use()  # at once, before the GPU clocks down
        now, cpu = system.clock(), system.cpu_times()
        self._started, self._ended_s = None, now
        tree = system.tree(self._root)
        own_s = _own_seconds(system, tree) - started.own_s
        steal, foreign = _shares(started.cpu, cpu, now - started.time_s, own_s)
        gpu = self._gpu.sample(started.throttled_ns, tree, system) if self._gpu else Conditions()
        if self._slow is None or now - self._slow.read_at_s >= SLOW_EVERY_S:
            self._slow = self._read_slowly()
        slow = self._slow
        stall, pressure = linux.memory_stall_s(system), slow.memory_pressure
        if stall is not None and started.stall_s is not None and now > started.time_s:
            pressure = min(1.0, (stall - started.stall_s) / (now - started.time_s))
        return replace(
            gpu,
            thermal=slow.thermal,
            power_source=slow.power_source,
            low_power_mode=slow.low_power_mode,
            throttle_reasons=_reasons(gpu.throttle_reasons, started.throttles, linux.cpu_throttles(system)),
            load1=system.load1(),
            steal=steal,
            foreign_cpu=foreign,
            memory_pressure=pressure,
            cpu_clock_hz=linux.cpu_clock_hz(system),
            gpu_clock_hz=mac.clock_hz or gpu.gpu_clock_hz,
            gpu_use=mac.share if mac.share is not None else slow.gpu_use,
            foreign_gpu=slow.foreign_gpu,
            gpu_speed=mac.speed,
        )

    def others_on_gpu(self) -> frozenset[int]:
        """Return the processes that compute on the GPU beside ours, as far as they are known."""
        others = self._gpu.others(self._system.tree(self._root), self._system) if self._gpu else None
        return others or frozenset()

    def _read_slowly(self) -> _Slow:
        system = self._system
        now, mac = system.clock(), system.platform == "darwin"
        facts = apple if mac else linux
        thermal, pressure = (apple.thermal(system), apple.memory_pressure(system)) if mac else (None, None)
        source, low_power = facts.power_source(system), facts.low_power_mode(system)
        gpu_s, use, foreign = None, None, None
        if self._mac:
            gpu_s, use = apple_gpu.seconds_by_process(system), apple.gpu_use(system)
            if self._slow:
                seconds, own = now - self._slow.read_at_s, system.tree(self._root)
                foreign = apple_gpu.foreign(self._slow.gpu_s, gpu_s, seconds, own)
        return _Slow(now, thermal, source, low_power, pressure, gpu_s, use, foreign)


def faults(conditions: Conditions, limits: Limits) -> tuple[Fault, ...]:
    """Return every reason why a run under these conditions does not count; what is unknown is no fault."""
    return tuple(_faults(conditions, limits))


def _faults(now: Conditions, limits: Limits) -> Iterator[Fault]:
    if now.steal is not None and now.steal > limits.steal:
        found = f"the hypervisor took {now.steal:.1%} of all cores (limit {limits.steal:.1%})"
        yield Fault("steal", found, "measure on a machine of its own, or when its neighbours are quiet")
    if now.foreign_cpu is not None and now.foreign_cpu > limits.foreign_cpu:
        found = f"other processes used {now.foreign_cpu:.1%} of all cores (limit {limits.foreign_cpu:.1%})"
        yield Fault("foreign-cpu", found, "stop what runs beside the measurement; top shows it")
    if now.thermal not in (None, "nominal"):
        found = f"thermal pressure is {now.thermal}"
        yield Fault("thermal", found, "let the machine cool, or improve its air flow")
    if reasons := set(now.throttle_reasons or ()) - HARMLESS_REASONS:
        found = f"clocks were held down: {', '.join(sorted(reasons))}"
        yield Fault("throttled", found, "let the machine cool and check its power supply")
    if now.power_source in ("battery", "ups"):
        yield Fault("battery", f"the machine runs on {now.power_source} power", "plug it in")
    if now.low_power_mode:
        remedy = "turn Low Power Mode off (Linux: powerprofilesctl set balanced)"
        yield Fault("low-power-mode", "the machine saves power", remedy)
    if now.memory_pressure is not None and now.memory_pressure > limits.memory_pressure:
        found = f"memory pressure is {now.memory_pressure:.0%} (limit {limits.memory_pressure:.0%})"
        yield Fault("memory-pressure", found, "close programs, or measure a smaller checkpoint")
    if now.gpu_processes is not None and now.gpu_processes > limits.gpu_processes:
        found = f"{now.gpu_processes} other process(es) compute on the GPU (limit {limits.gpu_processes})"
        yield Fault("gpu-processes", found, "stop them; nvidia-smi names them")
    if now.foreign_gpu is not None and now.foreign_gpu > limits.foreign_gpu:
        found = f"other processes used {now.foreign_gpu:.1%} of the GPU (limit {limits.foreign_gpu:.1%})"
        yield Fault("gpu-busy", found, apple.GPU_REMEDY)
    if now.gpu_speed is not None and now.gpu_speed < limits.gpu_speed:
        found = f"the GPU ran at {now.gpu_speed:.0%} of its speed at first (limit {limits.gpu_speed:.0%})"
        yield Fault("throttled", found, "let the machine cool, or improve its air flow")


def _own_seconds(system: System, tree: frozenset[int]) -> float:
    return sum(system.seconds(pid) or 0.0 for pid in tree)


def _shares(
    before: CpuTimes | None, after: CpuTimes | None, elapsed_s: float, own_s: float
) -> tuple[float | None, float | None]:
    """Return steal and foreign CPU as fractions of all cores, each rounded down by the counters' resolution."""
    if before is None or after is None or elapsed_s * after.cpus < MINIMUM_CORE_S:
        return None, None
    core_s = elapsed_s * after.cpus
    # Sandboxes are known to serve constant counters, which mean nothing.
    if not 0.5 < (after.total_s - before.total_s) / core_s < 1.5:
        return None, None
    stolen = None if after.steal_s is None or before.steal_s is None else after.steal_s - before.steal_s
    # Idle time is exact where busy time is sampled, so the busy time is what is left over.
    foreign = core_s - (after.idle_s - before.idle_s) - (stolen or 0.0) - own_s
    steal = None if stolen is None else _fraction(stolen - TICK_S, core_s)
    return steal, _fraction(foreign - TICK_S, core_s)


def _fraction(part: float, whole: float) -> float:
    return round(min(1.0, max(0.0, part / whole)), 4)


def _reasons(gpu: tuple[str, ...] | None, before: int | None, after: int | None) -> tuple[str, ...] | None:
    if before is None or after is None:
        return gpu
    return (*(gpu or ()), *(("cpu-thermal",) if after > before else ()))
