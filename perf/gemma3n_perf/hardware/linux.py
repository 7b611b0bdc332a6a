"""What a Linux machine reports of its state, under /proc and /sys and by systemctl."""

import re

from gemma3n_perf.hardware.system import System
from gemma3n_perf.hardware.types import Fault

# A cap within this fraction of the fastest clock is rounding.
_CAP = 0.97


def power_source(system: System) -> str | None:
    """Return ``ac`` or ``battery``; None on a machine that reports no power supply, as servers do not."""
    kinds = {path.rpartition("/")[0]: system.line(path) for path in system.glob("/sys/class/power_supply/*/type")}
    if "1" in [system.line(f"{path}/online") for path, kind in kinds.items() if kind in ("Mains", "USB")]:
        return "ac"
    batteries = [system.line(f"{path}/status") for path, kind in kinds.items() if kind == "Battery"]
    return "battery" if "Discharging" in batteries else None


def low_power_mode(system: System) -> bool | None:
    """Say whether the firmware's platform profile is one that saves power."""
    profile = system.line("/sys/firmware/acpi/platform_profile")
    return profile in ("low-power", "quiet", "cool") if profile else None


def memory_stall_s(system: System) -> float | None:
    """Return the seconds since boot in which some task waited for memory (pressure stall information)."""
    match = re.search(r"^some .*\btotal=(\d+)", system.read("/proc/pressure/memory") or "", re.MULTILINE)
    return int(match[1]) * 1e-6 if match else None


def cpu_clock_hz(system: System) -> float | None:
    """Return the fastest clock among the first CPUs this process may use; virtual machines report none."""
    cpus = sorted(system.affinity() or ())[:4]
    clocks = [system.number(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus]
    return max((clock * 1e3 for clock in clocks if clock is not None), default=None)


def cpu_throttles(system: System) -> int | None:
    """Return how often heat has slowed the processor since boot (Intel's counter), None where none is kept."""
    return system.number("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")


def memory_bytes(system: System) -> int | None:
    """Return the memory of the machine, bytes."""
    return _memory_bytes(system, "MemTotal")


def uptime_s(system: System) -> float | None:
    """Return the seconds since the machine started."""
    match = re.match(r"(\d+(?:\.\d+)?)\s", system.read("/proc/uptime") or "")
    return float(match[1]) if match else None


def free_memory_bytes(system: System) -> int | None:
    """Return the memory that can be had without swapping, as the kernel estimates it."""
    return _memory_bytes(system, "MemAvailable")


def sleep(system: System) -> Fault | str | None:
    """Return a fault where the machine may be put to sleep, None where systemd does not say."""
    state = system.line(("systemctl", "show", "--property=LoadState", "--value", "sleep.target"))
    if state == "loaded":
        remedy = "on a machine that only measures: sudo systemctl mask sleep.target"
        return Fault("sleep", "may be put to sleep", remedy)
    return "cannot sleep" if state == "masked" else None


def clock_cap(system: System) -> Fault | str | None:
    """Return a fault where a setting keeps the CPU under its fastest clock; virtual machines report neither."""
    base = "/sys/devices/system/cpu/cpu0/cpufreq"
    allowed, fastest = system.number(f"{base}/scaling_max_freq"), system.number(f"{base}/cpuinfo_max_freq")
    if allowed is None or fastest is None:
        return None
    if allowed >= _CAP * fastest:
        return "not capped"
    found = f"capped at {allowed / 1e6:.2f} of {fastest / 1e6:.2f} GHz"
    remedy = "cpupower frequency-set --max, or keep it so for every measurement of this class"
    return Fault("clock-capped", found, remedy)


def _memory_bytes(system: System, name: str) -> int | None:
    match = re.search(rf"^{name}:\s+(\d+) kB$", system.read("/proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None
