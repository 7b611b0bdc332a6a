"""How a Linux machine fares, from what its kernel tells under /proc and /sys."""

import re

from gemma3n_perf.hardware.system import System


def power_source(system: System) -> str | None:
    """Return ``ac`` or ``battery``; None on a machine that tells of no power supply, as servers do not."""
    kinds = {path.rpartition("/")[0]: system.read(path) for path in system.glob("/sys/class/power_supply/*/type")}
    mains = [system.read(f"{path}/online") for path, kind in kinds.items() if (kind or "").strip() in ("Mains", "USB")]
    if "1" in [(online or "").strip() for online in mains]:
        return "ac"
    batteries = [system.read(f"{path}/status") for path, kind in kinds.items() if (kind or "").strip() == "Battery"]
    return "battery" if "Discharging" in [(status or "").strip() for status in batteries] else None


def low_power_mode(system: System) -> bool | None:
    """Say whether the firmware's platform profile is one that saves power."""
    profile = (system.read("/sys/firmware/acpi/platform_profile") or "").strip()
    return profile in ("low-power", "quiet", "cool") if profile else None


def memory_stall_s(system: System) -> float | None:
    """Return the seconds since boot in which some task waited for memory (pressure stall information)."""
    match = re.search(r"^some .*\btotal=(\d+)", system.read("/proc/pressure/memory") or "", re.MULTILINE)
    return int(match[1]) * 1e-6 if match else None


def cpu_clock_hz(system: System) -> float | None:
    """Return the fastest clock among the first CPUs this process may use; virtual machines tell none."""
    cpus = sorted(system.affinity() or ())[:4]
    texts = [system.read(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq") for cpu in cpus]
    clocks = [int(text) * 1e3 for text in texts if text and text.strip().isdigit()]
    return max(clocks, default=None)


def cpu_throttles(system: System) -> int | None:
    """Return how often heat has slowed the processor since boot (Intel's counter), None where none is kept."""
    text = system.read("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")
    return int(text) if text and text.strip().isdigit() else None
