"""CPUs: model and the cores this process may use.

The class must keep two microarchitectures apart even where a hypervisor masks the model, so a brand string with no
model number is joined by family, model and stepping (Skylake and Cascade Lake differ in nothing but the stepping).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from gemma3n_perf.hardware import apple, linux
from gemma3n_perf.hardware.system import Accelerator, System
from gemma3n_perf.hardware.types import Chip, slug

# What brand strings say besides the model: the clock, the core count, the generation, graphics.
_NOISE = re.compile(
    r"@.*|\b\d+-core\b|\b\d+(?:st|nd|rd|th) gen\b|\bcpu\b|\bprocessor\b|\bw(?:ith|/) .*|\b\d+-bit\b|\bversion \S+",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Cores:
    """Physical ``cores`` and hardware ``threads`` this process may use; ``quota`` is a control group's cap in cores."""

    cores: int
    threads: int
    quota: float | None = None

    def __str__(self) -> str:
        count = f"{self.cores}c" if self.cores == self.threads else f"{self.cores}c{self.threads}t"
        return count if self.quota is None else f"{count}-quota{self.quota:g}"


def chip(system: System, accelerator: Accelerator) -> Chip:
    """Return the CPU as a chip, such as ``cpu-amd-epyc-9b45-2c`` or, masked, ``cpu-amd-epyc-f25m1s1-2c``.

    Cores are those this process may run on: a pinned or capped process is another class. Two threads on one core count
    as ``1c2t``. Source: /proc/cpuinfo, sched_getaffinity, the control group's quota; sysctl on macOS.
    """
    if system.platform == "darwin":
        name, label, cores = _mac(system)
    else:
        blocks = _blocks(system.read("/proc/cpuinfo") or "")
        name, label = _x86(blocks) or _arm(blocks, system) or (system.machine, f"{slug(system.machine)}-unknown")
        cores = _cores(blocks, system)
    unknown = "-unknown" if label.endswith("-unknown") else ""
    return Chip(
        chip_class=f"cpu-{label.removesuffix('-unknown')}-{cores}{unknown}",
        vendor="cpu",
        name=name,
        cpu_cores=cores.threads,
        memory_bytes=(apple if system.platform == "darwin" else linux).memory_bytes(system),
        architecture=accelerator.architecture or system.machine,
    )


def has_model_number(brand: str) -> bool:
    """Say whether a brand string names one model: ``AMD EPYC 9B45`` does, ``AMD EPYC`` and ``Xeon E312xx`` do not."""
    tokens = re.findall(r"[a-z0-9]+", _NOISE.sub(" ", brand).lower())
    digits = {token: re.sub(r"\D", "", token) for token in tokens if len(token) > 2 and "xx" not in token}
    return any(len(number) > 1 and set(number) != {"0"} for number in digits.values())


def _mac(system: System) -> tuple[str, str, Cores]:
    name, count = apple.brand(system), apple.physical_cores(system)
    label = slug(name) if name and count else "apple-unknown"
    if apple.may_lack_a_fan(label):
        fanless = apple.fanless(system.line(("sysctl", "-n", "hw.model")))
        label += "-fan-unknown" if fanless is None else "-fanless" * fanless
    return name or "Apple", label, Cores(count or 1, count or 1)


def _x86(blocks: list[dict[str, str]]) -> tuple[str, str] | None:
    first = blocks[0] if blocks else {}
    name = first.get("model name")
    if name is None:
        return None
    label = slug(_NOISE.sub(" ", name))
    if has_model_number(name):
        return name, label
    numbers = [first.get(key, "") for key in ("cpu family", "model", "stepping")]
    if all(number.isdigit() for number in numbers):
        return name, f"{label}-f{numbers[0]}m{numbers[1]}s{numbers[2]}"
    return name, f"{label}-unknown"


def _arm(blocks: list[dict[str, str]], system: System) -> tuple[str, str] | None:
    # Numbers, not names: a table of names would grow, and rename the class of machines already measured.
    kinds = {
        tuple(block[key].removeprefix("0x") for key in ("CPU implementer", "CPU part", "CPU variant"))
        for block in blocks
        if {"CPU implementer", "CPU part", "CPU variant"} <= block.keys()
    }
    if not kinds:
        return None
    label = "-".join(f"{implementer}{part}v{variant}" for implementer, part, variant in sorted(kinds))
    names = re.findall(r"^\s*Model name:\s*(.+?)\s*$", system.run(["lscpu"]) or "", re.MULTILINE)
    return " + ".join(names) or f"Arm {label}", f"arm-{label}"


def _cores(blocks: list[dict[str, str]], system: System) -> Cores:
    allowed = system.affinity()
    usable = [b for b in blocks if b.get("processor", "").isdigit() and (not allowed or int(b["processor"]) in allowed)]
    threads = len(usable) or len(allowed or [0])
    places = {(block.get("physical id"), block["core id"]) for block in usable if "core id" in block}
    return Cores(len(places) or threads, threads, _quota(system, threads))


def _quota(system: System, threads: int) -> float | None:
    """Return the tightest cap of the control groups above this process, in cores, where it binds."""
    caps = []
    for line in (system.read("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or "cpu" in controllers.split(","):
            root = PurePosixPath("/sys/fs/cgroup", controllers)
            group = root / path.strip("/")
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            groups = [one for one in (group, *group.parents) if one.is_relative_to(root)]
            caps += [_cap(system, [one / file for file in files]) for one in groups]
    return min((cap for cap in caps if cap is not None and cap < threads), default=None)


def _cap(system: System, files: Iterable[PurePosixPath]) -> float | None:
    """Return microseconds of CPU time over those of a period, in cores; None where there is no cap."""
    numbers = " ".join(system.read(str(file)) or "" for file in files).split()
    if len(numbers) != 2 or not all(number.isdigit() for number in numbers) or int(numbers[1]) == 0:
        return None
    return round(int(numbers[0]) / int(numbers[1]), 2)


def _blocks(cpuinfo: str) -> list[dict[str, str]]:
    """Split /proc/cpuinfo into one dictionary for each processor."""
    blocks = []
    for text in re.split(r"\n\s*\n", cpuinfo.strip()):
        pairs = (line.partition(":") for line in text.splitlines())
        blocks.append({key.strip(): value.strip() for key, _, value in pairs if key.strip()})
    return [block for block in blocks if "processor" in block]
