"""What a kernel has to know of a layer before it runs: sizes, which are constants, and weights, which are inputs."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import mlx.core as mx
import numpy as np

Arrays = dict[str, Any]
Linear = tuple[mx.array, mx.array, mx.array]
"""A linear layer or embedding: packed weight, scales, biases; a dense one's weight three times."""

Function = Callable[..., Any]
Compile = Callable[[Function], Function]
"""``mx.compile`` or, in tests, identity."""


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


def _linears(layer: Any) -> dict[str, Any]:
    """Every linear layer that the kernels read, by the name of its arrays."""
    attention, mlp = layer.self_attn, layer.mlp
    found = {
        "router": layer.altup.modality_router, "q": attention.q_proj, "o": attention.o_proj, "gate": mlp.gate_proj,
        "up": mlp.up_proj, "down": mlp.down_proj, "left": layer.laurel.linear_left,
        "right": layer.laurel.linear_right, "pe_gate": layer.per_layer_input_gate,
        "pe_proj": layer.per_layer_projection,
    }  # fmt: skip
    return found if attention.is_kv_shared_layer else found | {"k": attention.k_proj, "v": attention.v_proj}


def _fit(linears: list[Any]) -> bool:
    """Whether a kernel can read these: all dense, or all of 4 bits in affine groups of 64, and none with a bias."""
    if any("bias" in each for each in linears):
        return False
    kinds = {
        (each.bits, each.group_size, getattr(each, "mode", "affine")) if "scales" in each else "dense"
        for each in linears
    }
    return kinds in ({"dense"}, {(4, 64, "affine")})


def _readable(layer: Any) -> bool:
    """Whether the kernels can read this layer: one kind of weights, plane 0 active, sizes in whole warps."""
    sizes = (layer.hidden_size, layer.self_attn.head_dim, layer.hidden_size_per_layer_input)
    return (
        _fit(list(_linears(layer).values()))
        and layer.config.altup_active_idx == 0
        and bool(layer.config.altup_correct_scale)
        and all(size % 64 == 0 for size in sizes)
        and layer.self_attn.head_dim <= 512
        and layer.mlp.gate_proj.weight.shape[0] * layer.input_layernorm.weight.dtype.size <= 90_000
    )


def readable_layers(model: Any) -> Iterator[Any]:
    """The decoder layers that the kernels can read."""
    return filter(_readable, model.language_model.model.layers)


def readable(language_model: Any) -> bool:
    """Whether a whole step can be decoded from this model's weights: every layer, and what is around them."""
    text = language_model.model
    around = [text.embed_tokens, text.embed_tokens_per_layer, text.per_layer_model_projection]
    around += [*text.altup_projections, *text.altup_unembed_projections]
    inside = all(_readable(layer) for layer in text.layers)
    return _fit(around) and inside and language_model.final_logit_softcapping is not None


def resident(value: Any, dtype: mx.Dtype) -> mx.array:
    """A number that kernels read, 16 times over.

    MLX keeps what the host wrote, and up to 8 bytes of anything, in memory that a GPU reads over its bus: microseconds
    for each block that does. What a kernel writes, beyond these, lies on the GPU.
    """
    return mx.full((16,), value, dtype)


def places(position: int, filled: int, capacity: int) -> mx.array:
    """Where a token goes, how many positions of its cache are filled with it, and how many there are: int32, (4,).

    Of another type than the host wrote it in, so that a kernel writes it anew: see ``resident``.
    """
    return mx.array([position, filled, capacity, 0], mx.int64).astype(mx.int32)


def _linear(layer: Any) -> Linear:
    if "scales" in layer:
        return layer.weight, layer.scales, layer.biases
    return layer.weight, layer.weight, layer.weight


def _gather(layer: Any) -> Arrays:
    """The arrays of one layer, by the names that ``decode`` uses. Only the AltUp coefficients are made anew."""
    attention, altup = layer.self_attn, layer.altup
    clip = layer.config.altup_coef_clip

    def coefficients(linear: Any) -> mx.array:
        weight = linear.weight.astype(mx.float32)
        return weight if clip is None else mx.clip(weight, -clip, clip)

    arrays: Arrays = {
        "eps": resident(layer.config.rms_norm_eps, mx.float32),
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
        "inv_freq": _inverse_frequencies(attention),
    }
    if not attention.is_kv_shared_layer:
        arrays["k_norm"] = attention.k_norm.weight
    if layer.mlp.activation_sparsity > 0:
        arrays["multiplier"] = resident(layer.mlp._std_multiplier, mx.float32)
    return arrays | {name: _linear(each) for name, each in _linears(layer).items()}


def _inverse_frequencies(attention: Any) -> mx.array:
    """Rotation per position of each pair of a head's elements, shape (head_dim / 2,), float32.

    Rounded as MLX's own RoPE rounds them, kernel on a GPU and plain operations on a CPU: at position 500 the last bits
    of a frequency are five digits of the angle.
    """
    half, base = attention.head_dim // 2, float(attention.rope.base)
    if mx.default_device().type == mx.DeviceType.cpu:
        return mx.exp(mx.arange(0, -half, -1, mx.float32) * (math.log(base) / half))
    share = np.arange(half, dtype=np.float32) / np.float32(half)
    first, second = mx.split(mx.array(np.exp2(-share * np.float32(math.log2(base)))), 2)
    return mx.concatenate([first, second])  # a kernel made it, see resident


class LayerArrays:
    """What ``prepare(plan, arrays)`` makes of the arrays of one layer, again when its weights were replaced since."""

    def __init__(self, layer: Any, prepare: Callable[[Plan, Arrays], Any]) -> None:
        self._layer = layer
        self._prepare = prepare
        self._seen: tuple[Any, Any] = (None, None)
        self._arrays: Any = None

    def __call__(self) -> Any:
        """What was made of them, the same object until then."""
        now = (self._layer.mlp.down_proj.weight, self._layer.altup.modality_router.weight)
        if now[0] is not self._seen[0] or now[1] is not self._seen[1]:
            self._arrays, self._seen = self._prepare(plan(self._layer), _gather(self._layer)), now
        return self._arrays


def only(*names: str) -> Callable[[Plan, Arrays], Arrays]:
    """Return what keeps these arrays of a layer, where it has them."""
    return lambda sizes, w: {name: w[name] for name in names if name in w}


class ModelArrays:
    """The same of a whole model. ``plans`` are the sizes of its layers."""

    def __init__(self, language_model: Any, prepare: Callable[[Plan, Arrays], Any]) -> None:
        self._model = language_model
        self.plans = [plan(layer) for layer in language_model.model.layers]
        self._layers = [LayerArrays(layer, prepare) for layer in language_model.model.layers]
        self._ends: Arrays = {}

    def __call__(self) -> tuple[Arrays, list[Any]]:
        """The arrays outside the decoder layers, by the names that ``begin`` and ``finish`` use, and of each layer."""
        text = self._model.model
        if self._ends.get("norm") is not text.norm.weight:
            self._ends = {
                "eps": resident(text.config.rms_norm_eps, mx.float32),
                "embed": _linear(text.embed_tokens),
                "embed_per_layer": _linear(text.embed_tokens_per_layer),
                "model_projection": _linear(text.per_layer_model_projection),
                "projections": [_linear(each) for each in text.altup_projections],
                "unembed": [_linear(each) for each in text.altup_unembed_projections],
                "layer_norm": text.per_layer_projection_norm.weight,
                "norm": text.norm.weight,
                "cap": mx.array([self._model.final_logit_softcapping], mx.float32),
                "caps": resident(self._model.final_logit_softcapping, mx.float32),
            }
        return self._ends, [arrays() for arrays in self._layers]


def per_plan(function: Function, compiled: Compile) -> Function:
    """Return what gives ``function(plan, ...)`` for layers of these sizes, compiled once; it takes and gives arrays."""
    return cache(lambda *plans: compiled(partial(function, *plans)))


def replacing(run: Function, layer: Any, names: tuple[str, ...], rows: slice) -> Function:
    """Return a method of one input that runs ``run`` at one position of batch 1: where ``rows`` of its shape are 1.

    ``names`` are the arrays of the layer that it reads.
    """
    function, weights = run(plan(layer)), LayerArrays(layer, only(*names))

    def method(original: Function, x: Any) -> Any:
        return function(weights(), x) if x.shape[rows] == (1, 1) else original(x)

    return method
