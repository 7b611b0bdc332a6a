"""How many operations MLX gathers before it hands them to the GPU: larger graphs on CUDA, larger buffers on Metal.

Both limits are set, since either binds while the other is swept.
"""

from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.hardware.types import Chip


def _has_gpu(chip: Chip) -> bool:
    return chip.vendor != "cpu"


FUSION = Fusion(
    name="ops-per-buffer",
    summary="1000 operations a command buffer or CUDA graph instead of MLX's own limit",
    replaces=(),
    graph=Declared(same=True),
    file=__file__,
    enabled=_has_gpu,
    where="GPUs",
    env={"MLX_MAX_OPS_PER_BUFFER": "1000", "MLX_MAX_MB_PER_BUFFER": "100000"},
)
