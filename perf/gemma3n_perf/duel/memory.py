"""How many processes of a duel the memory holds, before anything is loaded: two, one that is shared, or none."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gemma3n_perf.duel.builder import ReadyArm, in_one_process
from gemma3n_perf.errors import OutOfMemoryError, PerfError
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.workload.load import locate, needed_bytes
from gemma3n_perf.workload.workload import Workload

_LEAST_PROCESSES = 2
_OVERHEAD = 1.3
"""Memory of a process, as a multiple of its checkpoint: weights, KV cache, and the driver's own."""


def fit(
    arms: Sequence[ReadyArm], workloads: Sequence[str], sources: Mapping[str, str], root: Path, chip: Chip
) -> tuple[tuple[ReadyArm, ...], int]:
    """Return the arms, in one process where memory holds no second copy, and how many processes it holds.

    Raises OutOfMemoryError where Metal keeps fewer copies of a checkpoint resident than the arms need: the others would
    be moved out and back again while they are timed.
    """
    limit, needed, largest = chip.working_set_bytes or chip.memory_bytes, 0, ""
    for workload in map(Workload.parse, workloads):
        with suppress(PerfError, OSError):  # what a checkpoint lacks is named when it is loaded
            source = sources.get(workload.checkpoint, workload.checkpoint)
            size = (
                needed_bytes(source, root, with_towers=workload.modality == "image")
                if chip.working_set_bytes
                else sum(file.stat().st_size for file in locate(source, root)[1].glob("*.safetensors"))
            )
            needed, largest = max((needed, largest), (size, workload.checkpoint))
    processes = int(limit / (_OVERHEAD * needed)) if needed and limit else 1_000
    placed = in_one_process(arms) if processes < _LEAST_PROCESSES else tuple(arms)
    least = min(len({arm.process for arm in placed}), _LEAST_PROCESSES)
    if chip.working_set_bytes and processes < least:
        each = _OVERHEAD * needed / 1e9
        raise OutOfMemoryError(
            f"{largest} takes {each:.1f} GB in {'each of two processes' if least > 1 else 'a process'}, "
            f"and Metal keeps {chip.working_set_bytes / 1e9:.1f} GB resident here",
            expected=f"{least * each:.1f} GB",
            remedy="choose a smaller checkpoint (--checkpoint e2b-4bit or nano), or, where the machine has the memory: "
            f"sudo sysctl iogpu.wired_limit_mb={int(least * each * 1e9 / 2**20) + 1}",
        )
    return placed, processes
