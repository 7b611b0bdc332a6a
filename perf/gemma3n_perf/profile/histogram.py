"""What one decode token is made of: operations by group, beside what the config calls for and what others counted.

A difference that nobody can name is a question, not noise. Each one of the published histogram is explained by name,
from what mlx-vlm's model and MLX's kernels do, or shown as unexplained. The published counts are those of mlxcel, which
writes the same function with operations of its own choosing. Where its count is a multiple of the layers and a
remainder, what it does in a layer can be told apart from what it does around them.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gemma3n_perf.decode.graph import difference
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.profile.floor import expected_calls
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
_KNOWN = tomllib.loads(Path(__file__).with_name("reasons.toml").read_text(encoding="utf-8"))
LAYER: Mapping[str, tuple[int, str]] = _KNOWN["layer"]
ATTENTION: Mapping[str, int] = _KNOWN["attention"]

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
    rows = []
    for name in {**PUBLISHED, **graph.operations}:
        old, new = PUBLISHED.get(name, 0), graph.operations.get(name, 0)
        if old != new:
            rows.append(Deviation(name, old, new, reason(name, old, new, graph.operations, config)))
    return Comparison("published", PUBLISHED_SOURCE, tuple(rows))


def reason(name: str, before: int, after: int, operations: Mapping[str, int], config: dict[str, Any]) -> str | None:
    """Return why a count differs, or None. ``before`` is published, ``after`` ours, of which ``operations`` are all."""
    text = config["text_config"]
    layers, shared = text["num_hidden_layers"], text.get("num_kv_shared_layers", 0)
    if name.startswith("Compiled"):
        return "mx.compile joins a chain of elementwise operations into one kernel; counted here as one"
    for kernel, parts in _KNOWN["parts"].items():
        if not operations.get(kernel) and name in parts:
            return f"this device has no kernel for {kernel} and runs {parts[name]}"
    decomposed = not operations.get("ScaledDotProductAttention")
    attention = ATTENTION.get(name, 0) * layers if decomposed else 0
    if name in LAYER:
        return _by_layer(name, before, after, layers, attention)
    known: str | None = _KNOWN["reasons"].get(name)
    if attention or (decomposed and name == "ScaledDotProductAttention"):
        found = f"attention is decomposed: this device has no fused kernel for head_dim {text['head_dim']} at one token"
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
        published = f"published: {theirs} a layer and {remainder}; {_KNOWN['more'].get(name, 'of what is not said')}"
    else:
        why = _KNOWN["fewer"].get(name, "which it does without is not said")
        published = f"published: room for {theirs} a layer at most; {why}"
    return f"{', '.join(parts)}; {published}"
