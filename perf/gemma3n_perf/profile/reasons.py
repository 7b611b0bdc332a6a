"""Why a count differs from the published histogram: by name, from what mlx-vlm's model and MLX's kernels do.

The published counts are those of mlxcel, which writes the same function with operations of its own choosing. Where its
count is a multiple of the layers and a rest, what it does in a layer can be told apart from what it does around them.
"""

from collections.abc import Mapping
from typing import Any


def reason(name: str, before: int, after: int, operations: Mapping[str, int], config: dict[str, Any]) -> str | None:
    """Return the reason in words, or None where none is known. ``before`` is published, ``after`` ours, of which
    ``operations`` are all."""
    text = config["text_config"]
    layers, shared = text["num_hidden_layers"], text.get("num_kv_shared_layers", 0)
    if name.startswith("Compiled"):
        return "mx.compile joins a chain of elementwise operations into one kernel; counted here as one"
    if not operations.get("RMSNorm") and name in _NORM:
        return f"this device has no kernel for RMSNorm and runs {_NORM[name]}"
    if not operations.get("RoPE") and name in _ROPE:
        return f"this device has no kernel for RoPE and runs {_ROPE[name]}"
    decomposed = not operations.get("ScaledDotProductAttention")
    if name in LAYER:
        return _by_layer(name, before, after, layers, _ATTENTION.get(name, 0) * layers if decomposed else 0)
    if decomposed:
        head = text["head_dim"]
        attention = f"attention is decomposed: this device has no fused kernel for head_dim {head} at one token"
        if name == "ScaledDotProductAttention":
            return attention
        if name in _ATTENTION:
            known = _ATTENTION[name] * layers
            rest = _REST.get(name)
            return f"{attention}; {known} of these are its own" + (f"; {rest}" if rest else "")
    if name == "SliceUpdate":
        own = 2 * (layers - shared)
        return (
            f"keys and values take {own}, as published; mlx-vlm assigns planes in place (h[1:] = ...), once a layer "
            "and 5 times around them, where mlxcel concatenates"
        )
    return _REST.get(name)


def _by_layer(name: str, before: int, after: int, layers: int, attention: int) -> str:
    """Ours in a layer, of the attention, and around the layers; and what the published count leaves room for."""
    each, what = LAYER[name]
    around = after - attention - each * layers
    theirs, rest = divmod(before, layers)
    parts = [f"{each} a layer here ({what})"]
    parts += [f"{attention} of the attention, decomposed on this device"] if attention else []
    parts += [f"{around} around the layers"] if around else []
    if theirs == each:
        told = f"as many a layer as published, which has {rest} around them"
    elif theirs > each:
        told = f"published: {theirs} a layer and {rest}; {_MORE.get(name, 'of what is not said')}"
    else:
        told = f"published: room for {theirs} a layer at most; {_FEWER.get(name, 'which it does without is not said')}"
    return f"{', '.join(parts)}; {told}"


LAYER = {
    "Multiply": (
        7,
        "the router's scaling twice, AltUp's correction and its output scale, the sum with LAUREL, the gated MLP, the "
        "per-layer gate",
    ),
    "Broadcast": (12, "scalars, AltUp's coefficients and planes"),
    "AsType": (7, "AltUp's router, coefficients and planes, to float32 and back"),
    "Add": (8, "four residual sums, LAUREL's, three in AltUp"),
}
"""What mlx-vlm's layer holds besides attention, norms and rotations (tests/profile/test_reasons.py)."""

_MORE = {"Add": "here the per-layer input goes to three planes at once; to each by itself would be two more a layer"}
_FEWER = {
    "Multiply": "the router's scaling, twice a layer, could be part of its norm's weight there, which is not said"
}

_NORM = {
    "RMSNorm": "its parts",
    "Square": "a square in each norm",
    "Rsqrt": "a reciprocal root in each norm",
    "Sum": "a sum in each norm",
}
_ROPE = {
    "RoPE": "its parts",
    "Cos": "a cosine in each rotation",
    "Sin": "a sine in each rotation",
    "Exp": "the frequencies of each rotation",
    "Arange": "the positions and frequencies of each rotation",
}
_ATTENTION = {"Softmax": 1, "Matmul": 2, "Flatten": 1, "Unflatten": 1, "Transpose": 1, "Multiply": 1, "Broadcast": 3}
"""What MLX's fallback runs for each attention, seen by exporting one alone (tests/profile/test_histogram.py)."""

_REST = {
    "Gather": "mlx-vlm reads a plane by an integer index (x[0], 4 times a layer), which MLX gathers; mlxcel slices and "
    "squeezes it. The embeddings' rows are gathered as well",
    "Slice": "mlx-vlm reads planes by Gather, where mlxcel slices",
    "Squeeze": "mlx-vlm reads planes by Gather, where mlxcel slices and squeezes",
    "Concatenate": "mlx-vlm assigns planes in place (SliceUpdate), where mlxcel concatenates; one stacks the planes",
    "Full": "mlx-vlm's numbers become constants of the graph, where mlxcel fills an array for each use",
    "Minimum": "mlx-vlm clips both AltUp coefficient matrices anew for every token, twice a layer",
    "Maximum": "mlx-vlm clips both AltUp coefficient matrices anew for every token, twice a layer; 2 more guard the "
    "planes' magnitudes",
    "Subtract": "the innovation of AltUp's correction, once a layer; not named in the publication",
    "Flatten": "MLX flattens the planes for the two dense AltUp coefficient products of a layer",
    "Unflatten": "MLX unflattens the result of the two dense AltUp coefficient products of a layer",
    "Reshape": "mlx-vlm reshapes q, k and v, the attention's output and AltUp's coefficients; mlxcel has more, of what "
    "is not said",
    "Tanh": "the last one, the softcap's, is inside a compiled kernel",
    "Transpose": "views of weights and planes; the two coefficient products of a layer transpose theirs",
    "Power": "magnitudes of the planes, before and after the layers; not named in the publication",
    "Divide": "magnitudes of the planes, before and after the layers; not named in the publication",
    "Sum": "mean and spread of the sparse layers' gates, and means over planes; not named in the publication",
    "NumberOfElements": "the mean's divisor in the sparse layers; not named in the publication",
    "Quantize": "dequantizing the two embeddings' rows: MLX's primitive for it has this name",
    "Less": "which ids have a per-layer embedding; not named in the publication",
    "Select": "which ids have a per-layer embedding; not named in the publication",
}
