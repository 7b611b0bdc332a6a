"""A whole decode step from hand-written CUDA kernels: the host pays for each kernel, so there are a tenth as many."""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import backend
from gemma3n_perf.fusions import patching as patching
from gemma3n_perf.fusions.kernels import ends, plan, precompiled
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.kernels.step import Compile, Step
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Replace decode at one position of batch 1; everything else stays mlx-vlm's. Without CUDA, change nothing."""
    if backend.cuda():
        apply_with(model, precompiled.maker(), mx.compile)


def apply_with(model: Any, make: Make, compiled: Compile) -> None:
    """``apply`` with a given kernel builder and compiler; changes nothing where the kernels cannot read the weights."""
    language_model = model.language_model
    layers = language_model.model.layers
    if not (all(plan.readable(layer) for layer in layers) and ends.readable(language_model.model)):
        return
    if language_model.final_logit_softcapping is None:
        return
    step = Step(language_model, Kernels(make), compiled)
    patching.decode_with(language_model, step)


FUSION = Fusion(
    name="cuda-step",
    summary="a decode step in 13 CUDA kernels a layer, each layer one compiled call",
    replaces=("LanguageModel.__call__", "Gemma3nDecoderLayer.__call__", "Gemma3nAttention.__call__", "MLP.__call__",
              "Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    graph=Declared(fewer=("nodes", "operations.RMSNorm", "calls.rope"), more=("operations.CustomKernel",)),
    file=__file__,
    enabled=backend.on_nvidia,
    where="NVIDIA GPUs; 4-bit weights in groups of 64, or dense 16-bit ones",
    apply=apply,
)  # fmt: skip
