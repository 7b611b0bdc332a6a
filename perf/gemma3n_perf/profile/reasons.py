"""Why a count differs from the published histogram: by name, from what mlx-vlm's model and MLX's kernels do.

The published counts are those of mlxcel, which writes the same function with operations of its own choosing.
"""

from typing import Any

from gemma3n_perf.decode.types import Graph


def reason(name: str, before: int, after: int, graph: Graph, config: dict[str, Any]) -> str | None:
    """Return the reason in words, or None where none is known. ``before`` is published, ``after`` ours."""
    text = config["text_config"]
    layers, shared = text["num_hidden_layers"], text.get("num_kv_shared_layers", 0)
    if name.startswith("Compiled"):
        return "mx.compile joins a chain of elementwise operations into one kernel; counted here as one"
    if not graph.operations.get("RMSNorm") and name in _NORM:
        return f"this device has no kernel for RMSNorm and runs {_NORM[name]}"
    if not graph.operations.get("RoPE") and name in _ROPE:
        return f"this device has no kernel for RoPE and runs {_ROPE[name]}"
    if not graph.operations.get("ScaledDotProductAttention"):
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
_ATTENTION = {"Softmax": 1, "Matmul": 2, "Flatten": 1, "Unflatten": 1, "Transpose": 1}
"""What MLX's fallback runs for each attention, seen by exporting one alone (tests/profile/test_reasons.py)."""

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
    "Add": "two in each approximate GELU are inside a compiled kernel here",
    "Multiply": "elementwise work that the two implementations cut differently; not attributed further",
    "Broadcast": "every scalar operand is broadcast; the implementations differ in them, not attributed further",
    "AsType": "AltUp computes in float32, each implementation converts elsewhere; not attributed further",
    "Transpose": "views of weights and planes; the two coefficient products of a layer transpose theirs",
    "Power": "magnitudes of the planes, before and after the layers; not named in the publication",
    "Divide": "magnitudes of the planes, before and after the layers; not named in the publication",
    "Sum": "mean and spread of the sparse layers' gates, and means over planes; not named in the publication",
    "NumberOfElements": "the mean's divisor in the sparse layers; not named in the publication",
    "Quantize": "dequantizing the two embeddings' rows: MLX's primitive for it has this name",
    "Less": "which ids have a per-layer embedding; not named in the publication",
    "Select": "which ids have a per-layer embedding; not named in the publication",
}
