"""AltUp's router and prediction in one CUDA block instead of some twenty kernels a layer."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import backend
from gemma3n_perf.fusions import patching as patching
from gemma3n_perf.fusions.kernels import decode, plan, precompiled
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Replace the predictions at one position of batch 1. Without CUDA, change nothing."""
    if backend.cuda():
        apply_with(model, precompiled.maker(), mx.compile)


def apply_with(model: Any, make: Make, compiled: Callable[..., Any]) -> None:
    """``apply`` with a given kernel builder and compiler."""
    kernels = Kernels(make)
    run = plan.PerPlan(lambda sizes, w, x: decode.predict(kernels, sizes, w, x, None, w["input_norm"])[0], compiled)
    for layer in model.language_model.model.layers:
        if plan.readable(layer):
            patching.wrap(layer.altup, "predict", _predict(run, layer))


def _predict(run: plan.PerPlan, layer: Any) -> Callable[..., Any]:
    function = run(plan.plan(layer))
    weights = plan.Held(layer, names=("router", "router_norm", "predict", "input_norm", "eps"))

    def predict(original: Any, x: Any) -> Any:
        return function(weights(), x) if x.shape[1:3] == (1, 1) else original(x)

    return predict


FUSION = Fusion(
    name="altup-router-predict",
    summary="AltUp's router norm, router, coefficients and prediction in one CUDA kernel",
    replaces=("Gemma3nAltUp.predict",),
    graph=Declared(fewer=("nodes", "operations.Matmul"), more=("operations.CustomKernel",)),
    file=__file__,
    enabled=backend.on_nvidia,
    where="NVIDIA GPUs; 4-bit weights in groups of 64, or dense 16-bit ones",
    apply=apply,
)
