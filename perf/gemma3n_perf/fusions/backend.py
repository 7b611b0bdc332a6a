"""Fusions whose kernels exist for one of MLX's backends only, and which of them runs here."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions.kernels import precompiled
from gemma3n_perf.fusions.types import Declared, Fusion
from gemma3n_perf.hardware.types import Chip


def cuda() -> bool:
    """Whether MLX computes on an NVIDIA GPU."""
    return bool(mx.cuda.is_available()) and mx.default_device().type == mx.DeviceType.gpu


def on_nvidia(chip: Chip) -> bool:
    """Where CUDA kernels can be on."""
    return chip.vendor == "nvidia"


def of_kernels(
    name: str, summary: str, replaces: tuple[str, ...], apply_with: Callable[[Any, Any, Any], None], *, file: str,
    fewer: tuple[str, ...] = ("nodes",),
) -> Fusion:  # fmt: skip
    """Return a fusion that calls ``apply_with(model, kernel builder, compiler)`` on CUDA; elsewhere it does nothing."""

    def apply(model: Any) -> None:
        if cuda():
            apply_with(model, precompiled.maker(), mx.compile)

    return Fusion(
        name=name,
        summary=summary,
        replaces=replaces,
        graph=Declared(fewer=fewer, more=("operations.CustomKernel",)),
        file=file,
        enabled=on_nvidia,
        where="NVIDIA GPUs; 4-bit weights in groups of 64, or dense 16-bit ones",
        apply=apply,
    )
