"""The MLP bridge on CUDA: gate, up and GeGLU in one product over the two arrays as they are, then down.

Concatenated weights would cost the memory of both projections again; the kernel reads two pointers instead.
"""

from collections.abc import Callable
from typing import Any

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.types import Declared, Fusion


def apply_with(model: Any, make: Make, compiled: Callable[..., Any]) -> None:
    """Replace the MLPs at one position of batch 1."""
    kernels = Kernels(make)
    run = plan.PerPlan(lambda sizes, w, x: decode.mlp(kernels, sizes, w, x), compiled)
    names = ("gate", "up", "down", "multiplier")
    for layer in model.language_model.model.layers:
        if plan.readable(layer):
            patching.wrap(layer.mlp, "__call__", plan.replacing(run, layer, names, slice(0, 2)))


FUSION = Fusion(
    name="fused-mlp",
    summary="gate, up and GeGLU in one CUDA product, with or without the gate's cut-off, and down in another",
    replaces=("MLP.__call__",),
    graph=Declared(fewer=("nodes",), more=("operations.CustomKernel",)),
    file=__file__,
    enabled=backend.on_nvidia,
    where=backend.WEIGHTS,
    apply=backend.on_cuda(apply_with),
)
