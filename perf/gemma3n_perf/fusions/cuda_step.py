"""A whole decode step from hand-written CUDA kernels: the host pays for each kernel, so there are a tenth as many."""

from typing import Any

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import ends
from gemma3n_perf.fusions.kernels.common import Kernels, Make
from gemma3n_perf.fusions.kernels.step import Compile, Step
from gemma3n_perf.fusions.types import Declared, Fusion


def apply_with(model: Any, make: Make, compiled: Compile) -> None:
    """Replace decode at one position of batch 1; everything else stays mlx-vlm's.

    Changes nothing where the kernels cannot read the weights.
    """
    if ends.readable(model.language_model):
        patching.decode_with(model.language_model, Step(model.language_model, Kernels(make), compiled))


FUSION = Fusion(
    name="cuda-step",
    summary="a decode step in 13 CUDA kernels a layer, each layer one compiled call",
    replaces=("LanguageModel.__call__", "Gemma3nDecoderLayer.__call__", "Gemma3nAttention.__call__", "MLP.__call__",
              "Gemma3nAltUp.predict", "Gemma3nAltUp.correct"),
    graph=Declared(fewer=("nodes", "operations.RMSNorm", "calls.rope"), more=("operations.CustomKernel",)),
    file=__file__,
    enabled=backend.on_nvidia,
    where=backend.WEIGHTS,
    apply=backend.on_cuda(apply_with),
)  # fmt: skip
