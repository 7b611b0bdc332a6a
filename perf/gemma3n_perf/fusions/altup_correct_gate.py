"""AltUp's correction, its output scale and the per-layer input's gate in three CUDA kernels at the end of a layer."""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import backend, patching
from gemma3n_perf.fusions.kernels import decode, plan
from gemma3n_perf.fusions.kernels.common import Kernels, Make


def apply_with(model: Any, make: Make, compiled: plan.Compile) -> None:
    """Replace the end of each layer at one position of batch 1."""
    kernels, single = Kernels(make), plan.resident(0, mx.int32)

    def end(sizes: plan.Plan, w: plan.Arrays, feed: Any, residual: Any, predictions: Any, given: Any) -> list[Any]:
        corrected, gate = decode.correct(kernels, sizes, w, feed, residual, predictions)
        return [corrected, decode.per_layer(kernels, sizes, w, gate, given, single)]

    run = plan.per_plan(end, compiled)
    for layer in plan.readable_layers(model):
        patching.wrap(layer, "__call__", _layer(run, layer))


def _layer(run: plan.Function, layer: Any) -> plan.Function:
    sizes = plan.plan(layer)
    function = run(sizes)
    names = ("router", "router_norm", "correct", "out_scale", "post_ffw_norm", "eps", "pe_gate", "pe_proj")
    weights = plan.LayerArrays(layer, plan.only(*names))
    lacking = mx.array([0.0] + [1.0] * (sizes.planes - 1), sizes.dtype).reshape(sizes.planes, 1, 1, 1)

    def call(original: Any, x: Any, mask: Any = None, cache: Any = None, per_layer_input: Any = None) -> Any:
        if x.shape[1:3] != (1, 1):
            return original(x, mask, cache, per_layer_input)
        predictions = layer.altup.predict(x)
        active = predictions[0]
        normed = layer.input_layernorm(active)
        laurel = layer.laurel(normed)
        attn = layer.post_attention_layernorm(layer.self_attn(normed, mask, cache))
        residual = (active + attn + laurel) * (2.0**-0.5)
        feed = layer.mlp(layer.pre_feedforward_layernorm(residual))
        corrected, added = function(weights(), feed, residual, predictions, per_layer_input)
        return corrected + lacking * layer.post_per_layer_input_norm(added)

    return call


FUSION = backend.of_kernels(
    "altup-correct-gate",
    "the norm after the MLP, AltUp's correction and scale, and the per-layer gate in three CUDA kernels",
    ("Gemma3nDecoderLayer.__call__", "Gemma3nAltUp.correct"),
    apply_with,
    file=__file__,
)
