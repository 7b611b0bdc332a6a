"""What a kernel has to know of a layer before it runs: sizes, which are constants, and weights, which are inputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np

from gemma3n_perf.fusions.kernels.common import Weights, fits

Arrays = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one decoder layer. ``shared``: it reads another layer's KV cache; ``sparse``: its gate is cut off."""

    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    planes: int
    rank: int
    inner: int
    per_layer: int
    shared: bool
    sparse: bool
    quantized: bool
    dtype: Any

    @property
    def left(self) -> int:
        """Where LAUREL's left half begins in the joint product of a layer's input."""
        return (self.heads + (0 if self.shared else 2 * self.kv_heads)) * self.head_dim


def linears(layer: Any) -> list[Any]:
    """Every linear layer that the kernels read."""
    attention, mlp = layer.self_attn, layer.mlp
    found = [
        attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj, layer.laurel.linear_left,
        layer.laurel.linear_right, layer.per_layer_input_gate, layer.per_layer_projection, layer.altup.modality_router,
    ]  # fmt: skip
    return found if attention.is_kv_shared_layer else [*found, attention.k_proj, attention.v_proj]


def readable(layer: Any) -> bool:
    """Whether the kernels can read this layer: one kind of weights, plane 0 active, sizes in whole warps."""
    all_linears = linears(layer)
    sizes = (layer.hidden_size, layer.self_attn.head_dim, layer.hidden_size_per_layer_input)
    return (
        all(fits(each) for each in all_linears)
        and len({"scales" in each for each in all_linears}) == 1
        and layer.config.altup_active_idx == 0
        and bool(layer.config.altup_correct_scale)
        and all(size % 64 == 0 for size in sizes)
        and layer.self_attn.head_dim <= 512
        and layer.mlp.gate_proj.weight.shape[0] * layer.input_layernorm.weight.dtype.size <= 90_000
    )


def plan(layer: Any) -> Plan:
    """Sizes of one of mlx-vlm's decoder layers."""
    attention = layer.self_attn
    return Plan(
        hidden=layer.hidden_size,
        heads=attention.n_heads,
        kv_heads=attention.n_kv_heads,
        head_dim=attention.head_dim,
        planes=layer.config.altup_num_inputs,
        rank=layer.config.laurel_rank,
        inner=layer.mlp.gate_proj.weight.shape[0],
        per_layer=layer.hidden_size_per_layer_input,
        shared=attention.is_kv_shared_layer,
        sparse=layer.mlp.activation_sparsity > 0,
        quantized="scales" in attention.q_proj,
        dtype=layer.input_layernorm.weight.dtype,
    )


def gather(layer: Any) -> Arrays:
    """The arrays of one layer, by the names that ``decode`` uses. Only the AltUp coefficients are made anew."""
    attention, mlp, altup = layer.self_attn, layer.mlp, layer.altup
    clip = layer.config.altup_coef_clip

    def coefficients(linear: Any) -> mx.array:
        weight = linear.weight.astype(mx.float32)
        return weight if clip is None else mx.clip(weight, -clip, clip)

    arrays: Arrays = {
        "eps": mx.array([layer.config.rms_norm_eps], mx.float32),
        "router": Weights.of(altup.modality_router).arrays,
        "router_norm": altup.router_norm.weight,
        "predict": coefficients(altup.prediction_coefs),
        "correct": coefficients(altup.correction_coefs),
        "out_scale": altup.correct_output_scale,
        "input_norm": layer.input_layernorm.weight,
        "attn_norm": layer.post_attention_layernorm.weight,
        "ffw_norm": layer.pre_feedforward_layernorm.weight,
        "post_ffw_norm": layer.post_feedforward_layernorm.weight,
        "laurel_norm": layer.laurel.post_laurel_norm.weight,
        "pe_norm": layer.post_per_layer_input_norm.weight,
        "q_norm": attention.q_norm.weight,
        "inv_freq": inverse_frequencies(attention),
    }
    parts = {
        "q": attention.q_proj, "o": attention.o_proj, "gate": mlp.gate_proj, "up": mlp.up_proj, "down": mlp.down_proj,
        "left": layer.laurel.linear_left, "right": layer.laurel.linear_right,
        "pe_gate": layer.per_layer_input_gate, "pe_proj": layer.per_layer_projection,
    }  # fmt: skip
    if not attention.is_kv_shared_layer:
        parts |= {"k": attention.k_proj, "v": attention.v_proj}
        arrays["k_norm"] = attention.k_norm.weight
    if mlp.activation_sparsity > 0:
        arrays["multiplier"] = mx.array(mlp._std_multiplier, mx.float32).reshape(1)
    return arrays | {name: Weights.of(linear).arrays for name, linear in parts.items()}


def inverse_frequencies(attention: Any) -> mx.array:
    """Rotation per position of each pair of a head's elements, shape (head_dim / 2,), float32.

    Rounded as MLX's own RoPE rounds them, kernel on a GPU and plain operations on a CPU: at position 500 the last bits
    of a frequency are five digits of the angle.
    """
    half, base = attention.head_dim // 2, float(attention.rope.base)
    if mx.default_device().type == mx.DeviceType.cpu:
        return mx.exp(mx.arange(0, -half, -1, mx.float32) * (math.log(base) / half))
    share = np.arange(half, dtype=np.float32) / np.float32(half)
    return mx.array(np.exp2(-share * np.float32(math.log2(base))))


class LayerArrays:
    """The gathered arrays of one layer, read again when the model's weights were replaced since.

    ``prepare(plan, arrays)`` may add to them, once; ``names`` keeps only those.
    """

    def __init__(
        self, layer: Any, prepare: Callable[[Plan, Arrays], Arrays] | None = None, names: tuple[str, ...] = ()
    ) -> None:
        self._layer = layer
        self._prepare = prepare
        self._names = names
        self._seen: Any = None
        self._arrays: Arrays = {}

    def __call__(self) -> Arrays:
        """The arrays, by name."""
        now = (self._layer.mlp.down_proj.weight, self._layer.altup.modality_router.weight)
        if self._seen is None or now[0] is not self._seen[0] or now[1] is not self._seen[1]:
            self._arrays, self._seen = gather(self._layer), now
            if self._prepare is not None:
                self._arrays = self._prepare(plan(self._layer), self._arrays)
            if self._names:
                self._arrays = {name: self._arrays[name] for name in self._names if name in self._arrays}
        return self._arrays


def replacing(
    run: "PerPlan", layer: Any, names: tuple[str, ...], rows: slice
) -> Callable[[Callable[..., Any], Any], Any]:
    """Return a method of one input that runs ``run`` at one position of batch 1: where ``rows`` of its shape are 1.

    ``names`` are the arrays of the layer that it reads.
    """
    function, weights = run(plan(layer)), LayerArrays(layer, names=names)

    def method(original: Callable[..., Any], x: Any) -> Any:
        return function(weights(), x) if x.shape[rows] == (1, 1) else original(x)

    return method


class Functions:
    """The compiled functions of a decode step, each made once by the method of its kind: ``_first(plan)`` and so on."""

    def __init__(self, compiled: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._compiled = compiled
        self._functions: dict[Any, Callable[..., Any]] = {}

    def _function(self, kind: str, *plans: Plan) -> Callable[..., Any]:
        if (kind, plans) not in self._functions:
            self._functions[kind, plans] = self._compiled(getattr(self, f"_{kind}")(*plans))
        return self._functions[kind, plans]


class PerPlan:
    """One compiled function for each kind of layer, made from ``function(plan, ...)``."""

    def __init__(self, function: Callable[..., Any], compiled: Callable[..., Any]) -> None:
        self._function = function
        self._compiled = compiled
        self._made: dict[Plan, Callable[..., Any]] = {}

    def __call__(self, sizes: Plan) -> Callable[..., Any]:
        """The function for layers of these sizes; it takes and gives arrays only."""
        if sizes not in self._made:
            self._made[sizes] = self._compiled(partial(self._function, sizes))
        return self._made[sizes]
