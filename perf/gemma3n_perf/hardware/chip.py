"""The chip class: what two absolute numbers must share to be comparable.

A class is read off the hardware and never set by hand. Where a fact that distinguishes two variants cannot be
read, the class ends in ``-unknown``: good for runs on that very machine, refused for a baseline that others share.

Beside it stands an anonymous id of the host, part of no class and no comparison. The machine's own id cannot be had
from it without trying all there are, and other programs that hash that id get another one.
"""

import hashlib
import re
import secrets
from dataclasses import replace
from functools import cache
from pathlib import Path

from gemma3n_perf.errors import NotComparableError
from gemma3n_perf.hardware import apple, cpu, nvidia
from gemma3n_perf.hardware.system import System, this_machine
from gemma3n_perf.hardware.types import Chip

_KEY = b"gemma3n-perf host"
_FILES = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_IOREG = ("ioreg", "-r", "-d", "1", "-c", "IOPlatformExpertDevice")


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
    system = this_machine()
    return replace(detect(system), host=host_id(system))


def host_id(system: System, folder: Path | None = None) -> str | None:
    """Return 16 hexadecimal digits, the same after every start of this machine and for all its users.

    Where the machine has no id, a random one is kept in ``folder``, the user's data folder by default; None where that
    cannot be written. Source: machine-id(5); IOPlatformUUID on macOS.
    """
    known = _of_mac(system) if system.platform == "darwin" else _of_linux(system)
    known = known or _kept(folder)
    return hashlib.blake2b(known.encode(), key=_KEY, digest_size=8).hexdigest() if known else None


def _of_linux(system: System) -> str | None:
    # Images of machines that have never started hold an empty file, or the word "uninitialized".
    texts = (system.line(path).lower() for path in _FILES)
    return next((text for text in texts if re.fullmatch(r"[0-9a-f]{32}", text) and text.strip("0")), None)


def _of_mac(system: System) -> str | None:
    match = re.search(r'"IOPlatformUUID" = "([0-9A-Fa-f-]{36})"', system.run(_IOREG) or "")
    return match[1].lower() if match else None


def _kept(folder: Path | None) -> str | None:
    import platformdirs  # almost no machine needs it

    path = (folder or platformdirs.user_data_path("gemma3n-perf", appauthor=False)) / "host-id"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(f"{secrets.token_hex(16)}\n", encoding="ascii")
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None
