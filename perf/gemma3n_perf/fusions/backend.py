"""Which of MLX's backends runs here. Asked by fusions whose kernels exist for one of them only."""

import mlx.core as mx

from gemma3n_perf.hardware.types import Chip


def cuda() -> bool:
    """Whether MLX computes on an NVIDIA GPU."""
    return bool(mx.cuda.is_available()) and mx.default_device().type == mx.DeviceType.gpu


def on_nvidia(chip: Chip) -> bool:
    """Where CUDA kernels can be on."""
    return chip.vendor == "nvidia"
