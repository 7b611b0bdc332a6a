"""AltUp's router and prediction in one CUDA block instead of some twenty kernels a layer."""

from collections.abc import Callable
from typing import Any

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.types import Declared, Fusion


def apply_with(model: Any, make: Make, compiled: Callable[..., Any]) -> None:
    """Replace the predictions at one position of batch 1."""
    kernels = Kernels(make)
    run = plan.PerPlan(lambda sizes, w, x: decode.predict(kernels, sizes, w, x, None, w["input_norm"])[0], compiled)
    names = ("router", "router_norm", "predict", "input_norm", "eps")
    for layer in model.language_model.model.layers:
        if plan.readable(layer):
            patching.wrap(layer.altup, "predict", plan.replacing(run, layer, names, slice(1, 3)))


FUSION = Fusion(
    name="altup-router-predict",
    summary="AltUp's router norm, router, coefficients and prediction in one CUDA kernel",
    replaces=("Gemma3nAltUp.predict",),
    graph=Declared(fewer=("nodes", "operations.Matmul"), more=("operations.CustomKernel",)),
    file=__file__,
    enabled=backend.on_nvidia,
    where=backend.WEIGHTS,
    apply=backend.on_cuda(apply_with),
)
