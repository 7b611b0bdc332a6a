"""The memory that a checkpoint takes, and whether this machine has it."""

from collections.abc import Mapping

from gemma3n_perf.errors import OutOfMemoryError
from gemma3n_perf.hardware import apple, linux
from gemma3n_perf.hardware.system import System, this_machine


def needed(sizes: Mapping[str, int], with_towers: bool) -> int:
    """Return the bytes that decode keeps in memory of a checkpoint with parts of these ``sizes``."""
    return sizes["total"] if with_towers else sizes["streamed"] + sizes["per_layer_embedding"]


def require(name: str, size: int, system: System | None = None) -> None:
    """Raise OutOfMemoryError where a checkpoint of that ``name`` takes more bytes than there are, or than Metal keeps
    resident: what it moves out and back again is no decode."""
    system = system or this_machine()
    resident = system.accelerator().info.get("max_recommended_working_set_size")
    facts = apple if system.platform == "darwin" else linux  # psutil raises on some versions of macOS
    limit = facts.memory_bytes(system) if resident is None else int(resident)
    if limit is not None and size > limit:
        found = "this machine has" if resident is None else "Metal keeps resident here"
        raise OutOfMemoryError(
            f"{name} needs {size / 1e9:.1f} GB, {found} {limit / 1e9:.1f} GB",
            expected="memory for the weights",
            remedy="choose a smaller checkpoint: --checkpoint e2b-4bit or nano",
        )
