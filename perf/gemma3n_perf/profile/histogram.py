"""What one decode token is made of: operations by group, beside what the config calls for and what others counted.

Opinion: a difference that nobody can name is a question, not noise. Each one of the published histogram is explained
by name, or shown as unexplained.
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
_PRIMITIVES = {
    "QuantizedMatmul": "quantized_matmul",
    "RMSNorm": "rms_norm",
    "RoPE": "rope",
    "ScaledDotProductAttention": "scaled_dot_product_attention",
}

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
    text = config["text_config"]
    layers = text["num_hidden_layers"]
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
    found = difference(before, after)
    rows = tuple(
        Deviation(name, old, new) for name, (old, new) in found.items() if name.startswith(("calls.", "operations."))
    )
    return Comparison(against, source, rows)


def beside_published(graph: Graph, config: dict[str, Any]) -> Comparison:
    """Compare with the published histogram of e4b-4bit and name the reason of each difference."""
    from gemma3n_perf.profile.reasons import reason

    names = [*PUBLISHED, *(name for name in graph.operations if name not in PUBLISHED)]
    rows = []
    for name in names:
        old, new = PUBLISHED.get(name, 0), graph.operations.get(name, 0)
        if old != new:
            rows.append(Deviation(name, old, new, reason(name, old, new, graph.operations, config)))
    return Comparison("published", PUBLISHED_SOURCE, tuple(rows))
