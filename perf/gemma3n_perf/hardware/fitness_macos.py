"""What a Mac tells of its fitness, from the commands macOS brings."""

import re

from gemma3n_perf.hardware.system import System
from gemma3n_perf.hardware.types import Fault

# The window server draws now and then; from here on something else computes.
_GPU_IDLE_PERCENT = 10


def uptime_s(system: System) -> float | None:
    """Return the seconds since the machine started, sleep included."""
    started = re.search(r"\bsec = (\d+)", system.run(("sysctl", "-n", "kern.boottime")) or "")
    now = (system.run(("date", "+%s")) or "").strip()
    return float(int(now) - int(started[1])) if started and now.isdigit() else None


def free_memory_bytes(system: System) -> int | None:
    """Return the memory that can be had at once: free, speculative, purgeable and file-backed inactive pages."""
    told = system.run(("vm_stat",)) or ""
    size = re.search(r"page size of (\d+) bytes", told)
    pages = {name: int(count) for name, count in re.findall(r'^"?([\w -]+?)"?:\s+(\d+)\.', told, re.MULTILINE)}
    if size is None or "Pages free" not in pages:
        return None
    names = ("Pages free", "Pages speculative", "Pages purgeable", "Pages inactive")
    return int(size[1]) * sum(pages.get(name, 0) for name in names)


def backup(system: System) -> Fault | bool | None:
    """Return a fault while Time Machine makes a backup, True while it does not."""
    running = re.search(r"\bRunning = (\d)", system.run(("tmutil", "status")) or "")
    if running is None:
        return None
    if running[1] == "0":
        return True
    return Fault(
        "backup-running",
        "a backup is being made",
        "let it finish; on a machine that only measures: sudo tmutil disable",
    )


def gpu_use(system: System) -> Fault | bool | None:
    """Return a fault while something computes on the GPU (nothing of ours does during the look)."""
    told = system.run(("ioreg", "-r", "-d", "1", "-c", "AGXAccelerator")) or ""
    percent = [int(value) for value in re.findall(r'"Device Utilization %"=(\d+)', told)]
    if not percent:
        return None
    if max(percent) < _GPU_IDLE_PERCENT:
        return True
    return Fault(
        "gpu-busy", f"something uses {max(percent)} % of the GPU", "stop it; Activity Monitor's GPU history shows it"
    )


def sleep(system: System) -> Fault | bool | None:
    """Return a fault where the settings let an unattended machine sleep or wake itself for chores."""
    told = dict(re.findall(r"^\s*(sleep|disksleep|powernap)\s+(\d+)", system.run(("pmset", "-g")) or "", re.MULTILINE))
    if "sleep" not in told:
        return None
    on = [f"{name} {value}" for name, value in told.items() if value != "0"]
    if not on:
        return True
    return Fault(
        "sleep", f"may sleep or work by itself: {', '.join(on)}", "sudo pmset -a sleep 0 disksleep 0 powernap 0"
    )
