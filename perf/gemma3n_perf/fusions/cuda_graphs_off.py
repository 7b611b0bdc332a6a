"""Launch every kernel on its own instead of through CUDA graphs: no graph to build and update at each step."""

from gemma3n_perf.fusions import backend
from gemma3n_perf.fusions.types import Declared, Fusion

FUSION = Fusion(
    name="cuda-graphs-off",
    summary="kernels launched one by one, without CUDA graphs",
    replaces=(),
    graph=Declared(same=True),
    file=__file__,
    enabled=backend.on_nvidia,
    where="NVIDIA GPUs",
    env={"MLX_USE_CUDA_GRAPHS": "0"},
)
