"""The MLP bridge on CUDA: gate, up and GeGLU in one product over the two arrays as they are, then down.

Concatenated weights would cost the memory of both projections again; the kernel reads two pointers instead.
"""

from functools import partial
from typing import Any

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make


def apply_with(model: Any, make: Make, compiled: plan.Compile) -> None:
    """Replace the MLPs at one position of batch 1."""
    run = plan.per_plan(partial(decode.mlp, Kernels(make)), compiled)
    names = ("gate", "up", "down", "multiplier")
    for layer in plan.readable_layers(model):
        patching.wrap(layer.mlp, "__call__", plan.replacing(run, layer, names, slice(0, 2)))


FUSION = backend.of_kernels(
    "fused-mlp",
    "gate, up and GeGLU in one CUDA product, with or without the gate's cut-off, and down in another",
    ("MLP.__call__",),
    apply_with,
    file=__file__,
)
