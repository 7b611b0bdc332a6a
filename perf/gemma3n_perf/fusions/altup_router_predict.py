"""AltUp's router and prediction in one CUDA block instead of some twenty kernels a layer."""

from typing import Any

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make


def apply_with(model: Any, make: Make, compiled: plan.Compile) -> None:
    """Replace the predictions at one position of batch 1."""
    kernels = Kernels(make)
    run = plan.per_plan(lambda sizes, w, x: decode.predict(kernels, sizes, w, x, None, w["input_norm"])[0], compiled)
    names = ("router", "router_norm", "predict", "input_norm", "eps")
    for layer in plan.readable_layers(model):
        patching.wrap(layer.altup, "predict", plan.replacing(run, layer, names, slice(1, 3)))


FUSION = backend.of_kernels(
    "altup-router-predict",
    "AltUp's router norm, router, coefficients and prediction in one CUDA kernel",
    ("Gemma3nAltUp.predict",),
    apply_with,
    file=__file__,
    fewer=("nodes", "operations.Matmul"),
)
