"""What one decode token is made of: operations by group, beside what the config calls for and what others counted.

A difference that nobody can name is a question, not noise. Each one of the published histogram is explained by name,
from what mlx-vlm's model and MLX's kernels do, or shown as unexplained. The published counts are those of mlxcel, which
writes the same function with operations of its own choosing. Where its count is a multiple of the layers and a
remainder, what it does in a layer can be told apart from what it does around them.
"""

from collections.abc import Mapping
from typing import Any

from gemma3n_perf.decode.graph import difference
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.profile.products import expected_calls
from gemma3n_perf.profile.types import Comparison, Deviation, Histogram

VIEWS = frozenset(
    {"AsStrided", "Broadcast", "BroadcastAxes", "ExpandDims", "Flatten", "NumberOfElements", "Reshape", "Slice"}
    | {"Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View"}
)
"""They describe data that is there already: work for the host, none for the device (a copying Reshape aside)."""

GLUE = frozenset(
    {"Arange", "AsType", "Concatenate", "Contiguous", "Copy", "DynamicSlice", "DynamicSliceUpdate", "Full", "Gather"}
    | {"Pad", "Scatter", "Select", "SliceUpdate"}
)
"""They move or convert data and compute nothing of the model."""

GROUPS = ("compute", "view", "glue")

PUBLISHED_SOURCE = "lablup/mlxcel #345, e4b-4bit on an M1 Ultra, MLX 0.31.2"
PUBLISHED: Mapping[str, int] = {
    "Broadcast": 442, "QuantizedMatmul": 433, "RMSNorm": 357, "Add": 351, "Transpose": 320, "Slice": 315,
    "Squeeze": 254, "AsType": 249, "Reshape": 222, "Multiply": 205, "Full": 149, "ExpandDims": 144, "Matmul": 105,
    "Tanh": 71, "RoPE": 55, "SliceUpdate": 40, "Concatenate": 36, "ScaledDotProductAttention": 35,
}  # fmt: skip
"""The published histogram; about 4,209 nodes, of which it names these."""


def group_of(operation: str) -> str:
    """Return compute, view or glue; a kernel that was compiled together computes."""
    return "view" if operation in VIEWS else "glue" if operation in GLUE else "compute"


def build(graph: Graph, config: dict[str, Any], position: int, *, compared: tuple[Comparison, ...] = ()) -> Histogram:
    """Group a decode graph. ``config`` is the checkpoint's."""
    layers = config["text_config"]["num_hidden_layers"]
    groups = dict.fromkeys(GROUPS, 0)
    for name, count in graph.operations.items():
        groups[group_of(name)] += count
    expected = expected_calls(config)
    return Histogram(
        position=position,
        layers=layers,
        nodes=graph.nodes,
        operations=dict(graph.operations),
        groups=groups,
        dtypes=dict(graph.dtypes),
        per_layer={name: round(count / layers, 2) for name, count in graph.operations.items() if count >= layers},
        expected=expected,
        found={name: graph.calls.get(name, 0) for name in expected},
        comparisons=compared,
    )


def beside(before: Graph, after: Graph, against: str, source: str) -> Comparison:
    """Compare this stack's graph (``after``) with another stack's or fusion's (``before``), count by count."""
    found = difference(before, after).items()
    return Comparison(
        against,
        source,
        tuple(Deviation(name, *counts) for name, counts in found if name.startswith(("calls.", "operations."))),
    )


def is_published(config: dict[str, Any]) -> bool:
    """Whether a checkpoint is the one whose histogram was published: e4b-4bit."""
    text = config["text_config"]
    return bool(config.get("quantization")) and (text["num_hidden_layers"], text["hidden_size"]) == (35, 2048)


def beside_published(graph: Graph, config: dict[str, Any]) -> Comparison:
    """Compare with the published histogram of e4b-4bit and name the reason of each difference."""
    counts = [
        (name, PUBLISHED.get(name, 0), graph.operations.get(name, 0)) for name in {**PUBLISHED, **graph.operations}
    ]
    rows = [
        Deviation(name, old, new, reason(name, old, new, graph.operations, config))
        for name, old, new in counts
        if old != new
    ]
    return Comparison("published", PUBLISHED_SOURCE, tuple(rows))


def reason(name: str, before: int, after: int, operations: Mapping[str, int], config: dict[str, Any]) -> str | None:
    """Return why a count differs, or None where no reason is known. ``before`` is published, ``after`` ours, of which
    ``operations`` are all."""
    text = config["text_config"]
    layers, shared = text["num_hidden_layers"], text.get("num_kv_shared_layers", 0)
    if name.startswith("Compiled"):
        return "mx.compile joins a chain of elementwise operations into one kernel; counted here as one"
    for kernel, parts in _PARTS.items():
        if not operations.get(kernel) and name in parts:
            return f"this device has no kernel for {kernel} and runs {parts[name]}"
    decomposed = not operations.get("ScaledDotProductAttention")
    attention = _ATTENTION.get(name, 0) * layers if decomposed else 0
    if name in LAYER:
        return _by_layer(name, before, after, layers, attention)
    known = _REASONS.get(name)
    if attention or (decomposed and name == "ScaledDotProductAttention"):
        found = "attention is decomposed: this device has no fused kernel for head_dim {} at one token".format(
            text["head_dim"]
        )
        return "; ".join(filter(None, (found, f"{attention} of these are its own" if attention else None, known)))
    if name == "SliceUpdate":
        return (
            f"keys and values take {2 * (layers - shared)}, as published; mlx-vlm assigns planes in place (h[1:] = "
            "...), once a layer and 5 times around them, where mlxcel concatenates"
        )
    return known


def _by_layer(name: str, before: int, after: int, layers: int, attention: int) -> str:
    """Ours in a layer, of the attention, and around the layers; and what the published count leaves space for."""
    each, what = LAYER[name]
    around = after - attention - each * layers
    theirs, remainder = divmod(before, layers)
    parts = [f"{each} a layer here ({what})"]
    parts += [f"{attention} of the attention, decomposed on this device"] if attention else []
    parts += [f"{around} around the layers"] if around else []
    if theirs == each:
        published = f"as many a layer as published, which has {remainder} around them"
    elif theirs > each:
        published = f"published: {theirs} a layer and {remainder}; {_MORE.get(name, 'of what is not said')}"
    else:
        why = _FEWER.get(name, "which it does without is not said")
        published = f"published: room for {theirs} a layer at most; {why}"
    return f"{', '.join(parts)}; {published}"


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
"""What mlx-vlm's layer holds besides attention, norms and rotations (tests/profile/test_histogram.py)."""

_MORE = {"Add": "here the per-layer input goes to three planes at once; to each by itself would be two more a layer"}
_FEWER = {
    "Multiply": "the router's scaling, twice a layer, could be part of its norm's weight there, which is not said"
}

_PARTS = {
    "RMSNorm": {
        "RMSNorm": "its parts",
        "Square": "a square in each norm",
        "Rsqrt": "a reciprocal root in each norm",
        "Sum": "a sum in each norm",
    },
    "RoPE": {
        "RoPE": "its parts",
        "Cos": "a cosine in each rotation",
        "Sin": "a sine in each rotation",
        "Exp": "the frequencies of each rotation",
        "Arange": "the positions and frequencies of each rotation",
    },
}
"""What MLX runs in place of a kernel that a device does not have."""

_ATTENTION = {"Softmax": 1, "Matmul": 2, "Flatten": 1, "Unflatten": 1, "Transpose": 1, "Multiply": 1, "Broadcast": 3}
"""What MLX's fallback runs for each attention, seen by exporting one alone (tests/profile/test_histogram.py)."""

_REASONS = {
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
