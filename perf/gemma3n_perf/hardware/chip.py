"""The chip class: what two absolute numbers must share to be comparable.

A class is read off the hardware and never set by hand. Where a fact that distinguishes two variants cannot be
read, the class ends in ``-unknown``: good for runs on that very machine, refused for a baseline that others share.
"""

from functools import cache

from gemma3n_perf.errors import NotComparableError
from gemma3n_perf.hardware import apple, cpu, nvidia
from gemma3n_perf.hardware.system import System, this_machine
from gemma3n_perf.hardware.types import Chip


def detect(system: System | None = None) -> Chip:
    """Return the chip that MLX's default device runs on; this machine's unless another ``system`` is given.

    The class follows the device: on a machine with a GPU whose default device is the CPU, it is the CPU's class.
    Source: sysctl and system_profiler for Apple, NVML for NVIDIA, /proc/cpuinfo for CPUs.
    """
    if system is None:
        return _this_chip()
    accelerator = system.accelerator()
    if accelerator.backend == "metal":
        return apple.chip(system, accelerator)
    if accelerator.backend == "cuda":
        return nvidia.chip(system, accelerator)
    return cpu.chip(system, accelerator)


def require_known(chip: Chip) -> None:
    """Raise NotComparableError if the class may hold variants that differ in speed."""
    if chip.chip_class.endswith("-unknown"):
        raise NotComparableError(
            f"chip class {chip.chip_class} may hold several variants of {chip.name}",
            expected="every fact that distinguishes variants: GPU cores, power limit, CPU model",
            remedy="gemma3n-perf chip --json shows what could be read; measure where the platform reports the others",
        )


@cache
def _this_chip() -> Chip:
    return detect(this_machine())
