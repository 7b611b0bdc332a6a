"""What a Linux machine tells of its fitness, from /proc, /sys and df."""

import re
from pathlib import Path

from gemma3n_perf.hardware.system import System
from gemma3n_perf.hardware.types import Fault

# A cap within this fraction of the fastest clock is rounding.
_CAP = 0.97


def uptime_s(system: System) -> float | None:
    """Return the seconds since the machine started."""
    match = re.match(r"(\d+(?:\.\d+)?)\s", system.read("/proc/uptime") or "")
    return float(match[1]) if match else None


def free_memory_bytes(system: System) -> int | None:
    """Return the memory that can be had without swapping, as the kernel estimates it."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", system.read("/proc/meminfo") or "", re.MULTILINE)
    return int(match[1]) * 1024 if match else None


def free_disk_bytes(system: System, folder: Path) -> int | None:
    """Return the free space of the file system that ``folder``, or its nearest existing parent, is on."""
    for path in (folder, *folder.parents):
        lines = (system.run(("df", "-Pk", str(path))) or "").strip().splitlines()
        # The device's name may hold spaces, so the columns are counted from the percentage.
        match = re.search(r"\s(\d+)\s+\d+%\s", lines[-1]) if len(lines) > 1 else None
        if match:
            return int(match[1]) * 1024
    return None


def sleep(system: System) -> Fault | bool | None:
    """Return True where the machine is kept from sleeping, a fault where it may, None where systemd does not tell."""
    told = (system.run(("systemctl", "show", "--property=LoadState", "--value", "sleep.target")) or "").strip()
    if told == "masked":
        return True
    if told != "loaded":
        return None
    return Fault("sleep", "may be put to sleep", "on a machine that only measures: sudo systemctl mask sleep.target")


def clock_cap(system: System) -> Fault | bool | None:
    """Return a fault where a setting keeps the CPU under its fastest clock; virtual machines tell nothing."""
    base = "/sys/devices/system/cpu/cpu0/cpufreq"
    clocks = [(system.read(f"{base}/{name}") or "").strip() for name in ("scaling_max_freq", "cpuinfo_max_freq")]
    if not all(clock.isdigit() for clock in clocks):
        return None
    allowed, fastest = (int(clock) for clock in clocks)
    if allowed >= _CAP * fastest:
        return True
    text = f"capped at {allowed / 1e6:.2f} of {fastest / 1e6:.2f} GHz"
    return Fault(
        "clock-capped", text, "cpupower frequency-set --max, or keep it so for every measurement of this class"
    )
