"""The machine as this suite sees it. Every reading goes through one System, so that a test can replay a recording.

A reading the platform does not give is ``None``; nothing here raises for it.
"""

import glob
import importlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from gemma3n_perf.hardware import ioreport, processes, shell

# system_profiler has been seen to take 5 s on a Mac that has just started.
COMMAND_TIMEOUT_S = 20.0
WORK_SIZE, _WORK_CHAIN, _WORK_TRIES = 1024, 8, 3


@dataclass(frozen=True, slots=True)
class Accelerator:
    """MLX's default device: ``backend`` is metal, cuda or cpu; ``info`` is ``mx.device_info()`` of it."""

    backend: str
    info: Mapping[str, str | int]

    @property
    def architecture(self) -> str | None:
        """The GPU's or CPU's architecture as MLX names it."""
        return str(self.info["architecture"]) if "architecture" in self.info else None


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds since boot, summed over ``cpus`` cores. ``steal_s`` is None where the kernel keeps no count of it."""

    total_s: float
    idle_s: float
    steal_s: float | None
    cpus: int


@dataclass(frozen=True, slots=True)
class System:
    """What can be read of a machine.

    ``platform`` is ``sys.platform``; ``run`` gives a command's output, ``read`` a file's text, ``glob`` sorted paths;
    ``affinity`` the CPUs this process may use; ``tree`` a process and its descendants; ``seconds`` the CPU time of one
    process with the children it has reaped; ``leader`` the process that a process or thread id belongs to;
    ``nvml`` the initialised ``pynvml`` module. Of a Mac's GPU ``gpu_states`` gives the ticks in each state since it was
    asked last, ``gpu_work_s`` the seconds of a fixed computation; None elsewhere.
    """

    platform: str
    machine: str
    run: Callable[[Sequence[str]], str | None]
    read: Callable[[str], str | None]
    glob: Callable[[str], Sequence[str]]
    accelerator: Callable[[], Accelerator]
    nvml: Callable[[], Any | None]
    affinity: Callable[[], frozenset[int] | None]
    cpu_times: Callable[[], CpuTimes | None]
    load1: Callable[[], float | None]
    tree: Callable[[int], frozenset[int]]
    seconds: Callable[[int], float | None]
    leader: Callable[[int], int | None]
    clock: Callable[[], float]
    gpu_states: Callable[[], Mapping[str, int] | None] = lambda: None
    gpu_work_s: Callable[[], float | None] = lambda: None

    def line(self, source: str | Sequence[str]) -> str:
        """Return a short file's text, or a command's output, without the space around it; empty where it is unknown."""
        return ((self.read(source) if isinstance(source, str) else self.run(source)) or "").strip()

    def number(self, source: str | Sequence[str]) -> int | None:
        """Return such a line where it is a whole number."""
        text = self.line(source)
        return int(text) if text.isdigit() else None


def this_machine() -> System:
    """Return the System that reads the real machine."""
    return System(
        platform=sys.platform,
        machine=platform.machine(),
        run=output_of,
        read=read_text,
        glob=lambda pattern: sorted(glob.glob(pattern)),
        accelerator=mlx_accelerator,
        nvml=load_nvml,
        affinity=lambda: frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else None,
        cpu_times=_cpu_times,
        load1=lambda: os.getloadavg()[0],
        tree=processes.tree,
        seconds=processes.cpu_seconds,
        leader=processes.leader,
        clock=time.monotonic,
        gpu_states=ioreport.states_here(),
        gpu_work_s=partial(time_fixed_work, time.perf_counter),
    )


def output_of(argv: Sequence[str]) -> str | None:
    """Return a command's standard output, or None if it is missing, fails or does not end in time."""
    done = shell.run_command(argv, COMMAND_TIMEOUT_S)
    return done.out if done.code == 0 else None


def read_text(path: str) -> str | None:
    """Return a file's text, or None if it cannot be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


def mlx_accelerator() -> Accelerator:
    """Return MLX's default device. Imports MLX, which takes a moment."""
    import mlx.core as mx

    device = mx.default_device()
    backend = "cpu"
    if device.type == mx.DeviceType.gpu:
        backend = "metal" if mx.metal.is_available() else "cuda"
    return Accelerator(backend, dict(mx.device_info(device)))


def time_fixed_work(clock: Callable[[], float], size: int = WORK_SIZE) -> float:
    """Return the seconds of a fixed computation on MLX's default device: the best of a few, each some milliseconds."""
    import mlx.core as mx

    operand, times = mx.full((size, size), 1 / size, dtype=mx.float16), []
    mx.eval(operand)
    for _ in range(_WORK_TRIES):
        begin, value = clock(), operand
        for _ in range(_WORK_CHAIN):
            value = value @ operand
        mx.eval(value)
        times.append(clock() - begin)
    return min(times)


def load_nvml() -> Any | None:
    """Return ``pynvml``, initialised, or None without the package or without a driver."""
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    return nvml


def _cpu_times() -> CpuTimes | None:
    try:
        times = psutil.cpu_times()._asdict()
    except (psutil.Error, OSError, RuntimeError):  # as psutil 7.2.2 does where it does not know the version of macOS
        return None
    # Linux counts the time given to guests within user time already.
    total = sum(value for name, value in times.items() if not name.startswith("guest"))
    idle = times["idle"] + times.get("iowait", 0.0)
    return CpuTimes(total, idle, times.get("steal"), os.cpu_count() or 1)
