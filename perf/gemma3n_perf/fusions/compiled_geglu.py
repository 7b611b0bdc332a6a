"""GeGLU compiled with its product. mlx-vlm compiles gelu_topk and mlx compiles gelu_approx; the multiplication by
``up`` stays outside of both, and the standard deviation is taken in two passes over the gate.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


@partial(mx.compile, shapeless=True)
def geglu(gate: mx.array, up: mx.array) -> mx.array:
    """``gelu(gate) * up``, in one elementwise kernel."""
    product: mx.array = nn.gelu_approx(gate) * up
    return product


@partial(mx.compile, shapeless=True)
def sparse_geglu(gate: mx.array, up: mx.array, multiplier: mx.array) -> mx.array:
    """``gelu(max(0, gate - cutoff)) * up``, the cut-off at the mean plus ``multiplier`` deviations of each row."""
    centred = gate - mx.mean(gate, axis=-1, keepdims=True)
    deviation = mx.sqrt(mx.mean(centred * centred, axis=-1, keepdims=True))
    product: mx.array = nn.gelu_approx(mx.maximum(0, centred - deviation * multiplier.astype(gate.dtype))) * up
    return product


def apply(model: Any) -> None:
    """Replace the MLPs' activation, at any length."""
    for layer in model.language_model.model.layers:
        patching.wrap(layer.mlp, "__call__", _mlp(layer.mlp))


def _mlp(mlp: Any) -> Callable[..., Any]:
    multiplier = mlp._std_multiplier if mlp.activation_sparsity > 0 else None

    def call(original: Any, x: Any) -> Any:
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        return mlp.down_proj(geglu(gate, up) if multiplier is None else sparse_geglu(gate, up, multiplier))

    return call


FUSION = Fusion(
    name="compiled-geglu",
    summary="the gate's activation, its cut-off and the product with up compiled together",
    replaces=("MLP.__call__",),
    graph=Declared(fewer=("nodes",)),
    file=__file__,
    apply=apply,
)
