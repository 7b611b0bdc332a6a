"""Which of MLX's backends runs here, for fusions whose kernels exist for one of them only."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels import precompiled
from gemma3n_perf.hardware.types import Chip

WEIGHTS = "NVIDIA GPUs; 4-bit weights in groups of 64, or dense 16-bit ones"
"""Where the CUDA kernels apply, and to what."""


def cuda() -> bool:
    """Whether MLX computes on an NVIDIA GPU."""
    return bool(mx.cuda.is_available()) and mx.default_device().type == mx.DeviceType.gpu


def on_cuda(apply_with: Callable[[Any, Callable[..., Any], Callable[..., Any]], None]) -> Callable[[Any], None]:
    """Return what calls ``apply_with(model, kernel builder, compiler)`` on CUDA, and changes nothing elsewhere."""

    def apply(model: Any) -> None:
        if cuda():
            apply_with(model, precompiled.maker(), mx.compile)

    return apply


def on_nvidia(chip: Chip) -> bool:
    """Where CUDA kernels can be on."""
    return chip.vendor == "nvidia"
