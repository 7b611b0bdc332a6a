"""Apple silicon: what it is and the state it is in, from the commands macOS brings."""

import json
import re

from gemma3n_perf.hardware.system import Accelerator, System
from gemma3n_perf.hardware.types import Chip, Fault, slug

# The names Darwin gives com.apple.system.thermalpressurelevel on macOS (OSThermalNotification.h).
THERMAL_LEVELS = ("nominal", "moderate", "heavy", "trapping", "sleeping")
# kern.memorystatus_vm_pressure_level: normal, warning, critical.
MEMORY_LEVELS = {1: 0.0, 2: 0.5, 4: 1.0}
# Since M2 all models are called Mac: MacBook Air with M2 (13, 15 inches), M3, M4.
FANLESS = {"Mac14,2", "Mac14,15", "Mac15,12", "Mac15,13", "Mac16,12", "Mac16,13"}
LAST_KNOWN_GENERATION = 16
FIRST_ACCELERATED_GENERATION = 5
FIRST_ACCELERATED_MACOS = (26, 2)
# The window server draws now and then; from here on something else computes.
_GPU_IDLE_PERCENT = 10
_SYSCTL = ("sysctl", "-n")


def chip(system: System, accelerator: Accelerator) -> Chip:
    """Return the chip of a Mac. The class holds the name and the GPU cores: an M1 Ultra has 48 or 64 of them.

    Where no command gives the GPU cores (some virtual machines) the class ends in ``-gpu-unknown``.
    """
    name = brand(system) or str(accelerator.info.get("device_name", "Apple"))
    cores, model = gpu_cores(system), system.line((*_SYSCTL, "hw.model")) or None
    version = system.line((*_SYSCTL, "kern.osproductversion")) or None
    return Chip(
        chip_class=f"{slug(name)}-{f'{cores}gpu' if cores else 'gpu-unknown'}",
        vendor="apple",
        name=name,
        gpu_cores=cores,
        cpu_cores=physical_cores(system),
        memory_bytes=memory_bytes(system),
        architecture=accelerator.architecture,
        neural_accelerator=neural_accelerator(name, version),
        os_version=version,
        model=model,
        fanless=fanless(model),
    )


def fanless(model: str | None) -> bool | None:
    """Say whether a Mac of that ``hw.model`` has no fan, as every MacBook Air; None for models not known here.

    Source: Apple, "Identify your MacBook Air model".
    """
    named = re.match(r"(MacBookAir|MacBookPro|Macmini|iMac|Mac)(\d+),", model or "")
    if named is None:
        return None
    if named[1] == "Mac" and int(named[2]) > LAST_KNOWN_GENERATION:
        return None
    return named[1] == "MacBookAir" or model in FANLESS


def brand(system: System) -> str | None:
    """Return the name the chip gives itself, such as ``Apple M1 Ultra``."""
    return system.line((*_SYSCTL, "machdep.cpu.brand_string")) or None


def physical_cores(system: System) -> int | None:
    """Return the number of CPU cores, performance and efficiency together."""
    return system.number((*_SYSCTL, "hw.physicalcpu"))


def memory_bytes(system: System) -> int | None:
    """Return the unified memory, bytes."""
    return system.number((*_SYSCTL, "hw.memsize"))


def gpu_cores(system: System) -> int | None:
    """Return the number of GPU cores, by system_profiler or else by the GPU's entry in the I/O registry."""
    try:
        displays = json.loads(system.run(["system_profiler", "SPDisplaysDataType", "-json"]) or "{}")
        for display in displays.get("SPDisplaysDataType", []):
            if str(display.get("sppci_cores", "")).isdigit():
                return int(display["sppci_cores"])
    except (AttributeError, ValueError):
        pass
    match = re.search(r'"gpu-core-count" = (\d+)', _gpu_registry(system))
    return int(match[1]) if match else None


def neural_accelerator(name: str, macos: str | None) -> bool | None:
    """Say whether MLX can use a neural accelerator in the GPU: generation M5 or later, and macOS 26.2 or later.

    None where the chip is no M-series part or the version of macOS cannot be read.
    """
    match = re.match(r"Apple M(\d+)\b", name)
    if match is None:
        return None
    if int(match[1]) < FIRST_ACCELERATED_GENERATION:
        return False
    version = re.match(r"(\d+)(?:\.(\d+))?", macos or "")
    return (int(version[1]), int(version[2] or 0)) >= FIRST_ACCELERATED_MACOS if version else None


def thermal(system: System) -> str | None:
    """Return thermal pressure as macOS names it, or ``speed-limit-N`` (percent) where only pmset reports throttling.

    On Apple silicon pmset keeps saying that no warning was recorded while the chip throttles, so it is read last.
    """
    notification = system.run(["notifyutil", "-g", "com.apple.system.thermalpressurelevel"]) or ""
    notified = re.search(r"thermalpressurelevel (\d+)", notification)
    if notified and int(notified[1]) < len(THERMAL_LEVELS):
        return THERMAL_LEVELS[int(notified[1])]
    recorded = system.run(["pmset", "-g", "therm"])
    if recorded is None:
        return None
    limits = [int(value) for value in re.findall(r"CPU_(?:Speed|Scheduler)_Limit\s*=\s*(\d+)", recorded)]
    if limits and min(limits) < 100:
        return f"speed-limit-{min(limits)}"
    return "nominal" if limits or "No thermal warning level has been recorded" in recorded else None


def power_source(system: System) -> str | None:
    """Return ``ac``, ``battery`` or ``ups``."""
    match = re.search(r"Now drawing from '(\w+) Power'", system.run(["pmset", "-g", "batt"]) or "")
    return match[1].lower() if match else None


def power_mode(system: System) -> str | None:
    """Return ``low``, ``automatic`` or ``high``: pmset's ``powermode`` 1, 0 or 2, or a setting for each."""
    pattern = r"^\s*(lowpowermode|highpowermode|powermode)\s+(\d+)\s*$"
    values = dict(re.findall(pattern, _settings(system), re.MULTILINE))
    if "1" in (values.get("lowpowermode"), values.get("powermode")):
        return "low"
    if values.get("highpowermode") == "1" or values.get("powermode") == "2":
        return "high"
    return "automatic" if values else None


def low_power_mode(system: System) -> bool | None:
    """Say whether Low Power Mode is on."""
    mode = power_mode(system)
    return mode == "low" if mode else None


def memory_pressure(system: System) -> float | None:
    """Return the kernel's memory pressure level as 0 (normal), 0.5 (warning) or 1 (critical)."""
    return MEMORY_LEVELS.get(system.number((*_SYSCTL, "kern.memorystatus_vm_pressure_level")) or 0)


def uptime_s(system: System) -> float | None:
    """Return the seconds since the machine started, sleep included."""
    started = re.search(r"\bsec = (\d+)", system.line((*_SYSCTL, "kern.boottime")))
    now = system.number(("date", "+%s"))
    return float(now - int(started[1])) if started and now is not None else None


def free_memory_bytes(system: System) -> int | None:
    """Return the memory that can be had at once: free, speculative, purgeable and file-backed inactive pages.

    Inactive pages that no file backs must be compressed or swapped first.
    """
    text = system.run(("vm_stat",)) or ""
    size = re.search(r"page size of (\d+) bytes", text)
    pages = {name: int(count) for name, count in re.findall(r'^"?([\w -]+?)"?:\s+(\d+)\.', text, re.MULTILINE)}
    if size is None or "Pages free" not in pages:
        return None
    inactive = pages.get("Pages inactive", 0)
    names = ("Pages free", "Pages speculative", "Pages purgeable")
    backed = min(inactive, pages.get("File-backed pages", inactive))
    return int(size[1]) * (backed + sum(pages.get(name, 0) for name in names))


def backup(system: System) -> Fault | str | None:
    """Return a fault while Time Machine makes a backup."""
    running = re.search(r"\bRunning = (\d)", system.run(("tmutil", "status")) or "")
    if running is None:
        return None
    remedy = "let it finish; on a machine that only measures: sudo tmutil disable"
    return "not running" if running[1] == "0" else Fault("backup-running", "a backup is being made", remedy)


def gpu_use(system: System) -> Fault | str | None:
    """Return a fault while something computes on the GPU; nothing of ours does meanwhile."""
    shares = re.findall(r'"Device Utilization %"=(\d+)', _gpu_registry(system))
    if not shares:
        return None
    percent = max(map(int, shares))
    remedy = "stop it; Activity Monitor's GPU history shows it"
    busy = Fault("gpu-busy", f"something uses {percent} % of the GPU", remedy)
    return "idle" if percent < _GPU_IDLE_PERCENT else busy


def sleep(system: System) -> Fault | str | None:
    """Return a fault where the settings let an unattended machine sleep or wake itself for chores."""
    settings = dict(re.findall(r"^\s*(sleep|disksleep|powernap)\s+(\d+)", _settings(system), re.MULTILINE))
    if "sleep" not in settings:
        return None
    on = [f"{name} {value}" for name, value in settings.items() if value != "0"]
    remedy = "sudo pmset -a sleep 0 disksleep 0 powernap 0"
    return Fault("sleep", f"may sleep or work by itself: {', '.join(on)}", remedy) if on else "never sleeps"


def _settings(system: System) -> str:
    return system.run(("pmset", "-g")) or ""


def _gpu_registry(system: System) -> str:
    return system.run(("ioreg", "-r", "-d", "1", "-c", "AGXAccelerator")) or ""
