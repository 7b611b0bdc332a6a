"""Chips, stacks and days in words: the same in listings, headings and pages."""

from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.report.units import size
from gemma3n_perf.store.files import SHORT_COMMIT
from gemma3n_perf.store.types import Baseline


def chip(chip: Chip) -> str:
    """Return ``Apple M1 Ultra, 64 GPU cores, 137 GB (apple-m1-ultra-64gpu)``; what is unknown is left out."""
    cores = ((chip.gpu_cores, "GPU cores"), (chip.cpu_cores, "CPU cores"))
    parts = [chip.name, *(f"{count} {kind}" for count, kind in cores if count is not None)]
    if chip.memory_bytes is not None:
        parts.append(f"{size(chip.memory_bytes)} of memory")
    return f"{', '.join(parts)} ({chip.chip_class})"


def stack(stack: Stack) -> str:
    """Return ``mlx 0.32.4 (cuda), mlx-vlm 0.7.10, Python 3.11.7, Linux 6.1``, with driver and knobs where set."""
    parts = [f"mlx {stack.mlx} ({stack.backend})", f"mlx-vlm {stack.mlx_vlm or 'absent'}", f"Python {stack.python}"]
    parts += [stack.os] if stack.driver is None else [stack.os, f"driver {stack.driver}"]
    return ", ".join([*parts, *(f"{name}={value}" for name, value in sorted(stack.knobs.items()))])


def commit(stack: Stack) -> str:
    """Return the short commit, marked where the tree was dirty."""
    name = stack.commit[:SHORT_COMMIT] if stack.commit else "unknown"
    return f"{name} with uncommitted changes" if stack.dirty else name


def dates(baseline: Baseline) -> str:
    """Return the first and last day its sessions were recorded, or the one day."""
    days = sorted(session.recorded[:10] for session in baseline.sessions)
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"


def sessions(count: int) -> str:
    """Return ``1 session`` or ``12 sessions``."""
    return f"{count} session{'' if count == 1 else 's'}"
