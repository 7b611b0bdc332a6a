"""Apple silicon: what it is and the state it is in, from the commands macOS brings."""

import json
import re

from gemma3n_perf.hardware.system import Accelerator, System
from gemma3n_perf.hardware.types import Chip, Fault, slug

# The names Darwin gives com.apple.system.thermalpressurelevel on macOS (OSThermalNotification.h).
THERMAL_LEVELS = ("nominal", "moderate", "heavy", "trapping", "sleeping")
# kern.memorystatus_vm_pressure_level: normal, warning, critical.
MEMORY_LEVELS = {1: 0.0, 2: 0.5, 4: 1.0}
# Since M2 all models are called Mac: MacBook Air with M2 (13, 15 inches), M3, M4, M5; MacBook Neo.
FANLESS = {f"Mac{one}" for one in ("14,2", "14,15", "15,12", "15,13", "16,12", "16,13", "17,3", "17,4", "17,5")}
LAST_KNOWN_MODELS = 17
# Where one number of GPU cores comes with two numbers of CPU cores. Of later chips nobody has looked here.
CPU_VARIANTS = {("apple-m1-pro", 14), ("apple-m4", 8)}
LAST_KNOWN_CHIP = 5
GPU_REMEDY = "stop it; Activity Monitor's GPU history shows it"
FIRST_ACCELERATED_GENERATION = 5
FIRST_ACCELERATED_MACOS, FIRST_ACCELERATED_WHEEL = (26, 2), 26
_SYSCTL = ("sysctl", "-n")


def chip(system: System, accelerator: Accelerator) -> Chip:
    """Return the chip of a Mac. The class holds the name and the GPU cores: an M1 Ultra has 48 or 64 of them.

    CPU cores are part of it where they differ, and so is a missing fan. Where one of these cannot be read, as the GPU
    cores of some virtual machines, the class ends in ``-unknown``.
    """
    name = brand(system) or str(accelerator.info.get("device_name", "Apple"))
    cores, model = gpu_cores(system), system.line((*_SYSCTL, "hw.model")) or None
    version, cpus = macos(system), physical_cores(system)
    limit = accelerator.info.get("max_recommended_working_set_size")
    return Chip(
        chip_class=_class(slug(name), cores, cpus, fanless(model)),
        vendor="apple",
        name=name,
        gpu_cores=cores,
        cpu_cores=cpus,
        memory_bytes=memory_bytes(system),
        architecture=accelerator.architecture,
        neural_accelerator=neural_accelerator(name, version),
        os_version=version,
        model=model,
        fanless=fanless(model),
        working_set_bytes=None if limit is None else int(limit),
    )


def _class(chip: str, gpu: int | None, cpu: int | None, without_fan: bool | None) -> str:
    if gpu is None:
        return f"{chip}-gpu-unknown"
    label, unknown = f"{chip}-{gpu}gpu", ""
    generation = re.match(r"apple-m(\d+)\b", chip)
    if (chip, gpu) in CPU_VARIANTS or (generation and int(generation[1]) > LAST_KNOWN_CHIP):
        label, unknown = (f"{label}-{cpu}cpu", "") if cpu else (label, "-cpu-unknown")
    if may_lack_a_fan(chip):
        label, unknown = f"{label}{'-fanless' * bool(without_fan)}", "-fan-unknown" if without_fan is None else unknown
    return label + unknown


def may_lack_a_fan(chip: str) -> bool:
    """Say whether a chip, as its class begins, is also built into Macs without a fan: no Pro, Max or Ultra is."""
    return re.fullmatch(r"apple-(?:m\d+|a\d+-pro)", chip) is not None


def fanless(model: str | None) -> bool | None:
    """Say whether a Mac of that ``hw.model`` has no fan, as every MacBook Air; None for models not known here.

    Source: Apple, "Identify your MacBook Air model".
    """
    named = re.match(r"(MacBookAir|MacBookPro|Macmini|iMac|Mac)(\d+),", model or "")
    if named is None:
        return None
    if named[1] == "Mac" and int(named[2]) > LAST_KNOWN_MODELS:
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


def macos(system: System) -> str | None:
    """Return the version of macOS."""
    return system.line((*_SYSCTL, "kern.osproductversion")) or None


def neural_accelerator(name: str, version: str | None, wheel: str | None = None) -> bool | None:
    """Say whether MLX takes its kernels for the GPU's neural accelerator on a chip of that name and macOS.

    It does from generation M5 and macOS 26.2 on. Where the platform of its ``wheel`` is known, one for an older macOS
    has no such kernels, and one for macosx_26_0 takes them on 26.0 and 26.1 too, which do not know them. None where a
    fact is missing. Source: mlx/backend/metal/device.cpp; github.com/ml-explore/mlx, issue 4525.
    """
    match = re.match(r"Apple M(\d+)\b", name)
    if match is None:
        return None
    if int(match[1]) < FIRST_ACCELERATED_GENERATION:
        return False
    built_for = re.match(r"macosx_(\d+)_", wheel or "")
    if built_for:
        return int(built_for[1]) >= FIRST_ACCELERATED_WHEEL
    number = _number(version)
    return number >= FIRST_ACCELERATED_MACOS if number else None


def neural_kernels(system: System, wheel: str | None) -> Fault | str | None:
    """Return a fault where MLX would run kernels for a neural accelerator that this macOS does not know."""
    version = macos(system)
    taken, number = neural_accelerator(brand(system) or "", version, wheel), _number(version)
    if taken is None or number is None:
        return None
    if not taken or number >= FIRST_ACCELERATED_MACOS:
        return "used" if taken else "not used"
    found = f"MLX's wheel for {wheel} uses the neural accelerator, and macOS {version} does not support that"
    return Fault("neural-accelerator", found, "update macOS to 26.2 or later")


def _number(version: str | None) -> tuple[int, int] | None:
    match = re.match(r"(\d+)(?:\.(\d+))?", version or "")
    return (int(match[1]), int(match[2] or 0)) if match else None


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


def gpu_use(system: System) -> float | None:
    """Return the share of time in which the GPU worked a moment ago, 0..1."""
    shares = re.findall(r'"Device Utilization %"=(\d+)', _gpu_registry(system))
    return max(map(int, shares)) / 100 if shares else None


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
