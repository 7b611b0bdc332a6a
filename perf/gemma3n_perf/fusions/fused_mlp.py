"""The MLP bridge on CUDA: gate, up and GeGLU in one product over the two arrays as they are, then down.

Concatenated weights would cost the memory of both projections again; the kernel reads two pointers instead.
"""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import backend
from gemma3n_perf.fusions import patching as patching
from gemma3n_perf.fusions.kernels import decode, plan, precompiled
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Replace the MLPs at one position of batch 1. Without CUDA, change nothing."""
    if backend.cuda():
        apply_with(model, precompiled.maker(), mx.compile)


def apply_with(model: Any, make: Make, compiled: Callable[..., Any]) -> None:
    """``apply`` with a given kernel builder and compiler."""
    kernels = Kernels(make)
    run = plan.PerPlan(lambda sizes, w, x: decode.mlp(kernels, sizes, w, x), compiled)
    for layer in model.language_model.model.layers:
        if plan.readable(layer):
            patching.wrap(layer.mlp, "__call__", _mlp(run, layer))


def _mlp(run: plan.PerPlan, layer: Any) -> Callable[..., Any]:
    function = run(plan.plan(layer))
    weights = plan.Held(layer, names=("gate", "up", "down", "multiplier"))

    def mlp(original: Any, x: Any) -> Any:
        return function(weights(), x) if x.shape[:2] == (1, 1) else original(x)

    return mlp


FUSION = Fusion(
    name="fused-mlp",
    summary="gate, up and GeGLU in one CUDA product, with or without the gate's cut-off, and down in another",
    replaces=("MLP.__call__",),
    graph=Declared(fewer=("nodes",), more=("operations.CustomKernel",)),
    file=__file__,
    enabled=backend.on_nvidia,
    where="NVIDIA GPUs; 4-bit weights in groups of 64, or dense 16-bit ones",
    apply=apply,
)
