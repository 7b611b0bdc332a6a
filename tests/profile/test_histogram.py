"""The histogram: groups, what the config calls for, and named reasons for what differs from the publication.

What is said of a layer's operations is held to mlx-vlm's own layers.
"""

import contextlib
import copy
from collections import Counter
from typing import Any
from unittest import mock

import mlx.core as mx
import pytest

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.profile import histogram
from gemma3n_perf.profile.histogram import PUBLISHED
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.presets import PRESETS

H100 = Graph(
    calls={"quantized_matmul": 433, "rms_norm": 357, "rope": 55, "scaled_dot_product_attention": 35},
    operations={
        "Broadcast": 553, "QuantizedMatmul": 433, "RMSNorm": 357, "Transpose": 355, "Multiply": 291, "Add": 281,
        "AsType": 245, "Squeeze": 186, "Matmul": 175, "Gather": 150, "Reshape": 147, "ExpandDims": 144, "Slice": 144,
        "Flatten": 105, "Unflatten": 105, "SliceUpdate": 80, "Maximum": 72,
        "CompiledMultiplyMultiplyAddMultiplyTanhAddMultiply": 70, "CompiledPower": 70, "Minimum": 70, "Tanh": 70,
        "RoPE": 55, "Softmax": 35, "Subtract": 35, "Sum": 25, "CompiledMultiply": 10,
        "CompiledMultiplySqrtAsTypeMultiplyAddSubtractMaximum": 10, "CompiledSubtractSquare": 10,
        "NumberOfElements": 10, "Power": 8, "Divide": 2, "Quantize": 2, "CompiledDivideTanhMultiply": 1,
        "Concatenate": 1, "Full": 1, "Less": 1, "Select": 1,
    },
    dtypes={"bfloat16": 3193, "float32": 1127},
    nodes=4310,
)  # fmt: skip
"""e4b-4bit as recorded in baselines/nvidia-h100-80gb-hbm3 (mlx 0.32.4, mlx-vlm 0.7.10)."""

CONFIG: dict[str, Any] = PRESETS["e4b-4bit"].config()


def test_every_operation_is_in_one_group_and_groups_add_up() -> None:
    """Compute, views and glue make up the graph."""
    found = histogram.build(H100, CONFIG, 324)
    assert sum(found.groups.values()) == found.nodes == 4310
    assert found.groups["view"] == 553 + 355 + 186 + 147 + 144 + 144 + 105 + 105 + 10
    assert found.groups["glue"] == 245 + 150 + 80 + 1 + 1 + 1
    assert found.per_layer["Tanh"] == 2.0
    assert not histogram.VIEWS & histogram.GLUE


def test_the_published_counts_are_met_and_so_no_difference() -> None:
    """QuantizedMatmul, RMSNorm and RoPE are as published, on the H100."""
    found = histogram.build(H100, CONFIG, 324, compared=(histogram.beside_published(H100, CONFIG),))
    assert found.expected == found.found
    differ = {one.name for one in found.comparisons[0].deviations}
    assert differ.isdisjoint({"QuantizedMatmul", "RMSNorm", "RoPE", "ExpandDims"})


def test_every_other_difference_of_the_h100_has_a_name() -> None:
    """None is left unexplained, and the attention's decomposition is named with its head dimension."""
    rows = histogram.beside_published(H100, CONFIG).deviations
    assert [one.name for one in rows if one.why is None] == []
    why = {one.name: one.why or "" for one in rows}
    assert "head_dim 256" in why["ScaledDotProductAttention"]
    assert "70 of these are its own" in why["Matmul"]
    assert "take 40, as published" in why["SliceUpdate"]


def test_a_new_operation_is_not_explained_away() -> None:
    """What nobody named is shown as such."""
    odd = Graph(H100.calls, {**H100.operations, "Sorcery": 3}, H100.dtypes, 4313)
    rows = {one.name: one for one in histogram.beside_published(odd, CONFIG).deviations}
    assert (rows["Sorcery"].before, rows["Sorcery"].after, rows["Sorcery"].why) == (0, 3, None)


def test_attention_decomposes_as_the_reasons_say() -> None:
    """MLX's own fallback for one token, exported alone on this device."""
    q, k = mx.zeros((1, 8, 1, 256)), mx.zeros((1, 2, 324, 256))
    mx.eval(q, k)
    if mx.default_device().type != mx.DeviceType.cpu:
        pytest.fail("the CPU has the fallback; run the tests on the CPU build")
    out = mx.fast.scaled_dot_product_attention(q, k, k, scale=1.0)
    found = graphs._nodes([out, q, k]) - graphs._nodes([q, k])
    for name, count in histogram.ATTENTION.items():
        assert found[name] == count, (name, found)


def test_norms_and_rotations_of_a_cpu_are_named() -> None:
    """A CPU runs their parts."""
    config = PRESETS["nano"].config()
    graph = graphs.count(config, position=44)
    for name in ("RMSNorm", "Rsqrt", "Square", "RoPE", "Cos", "Sin"):
        assert "no kernel for" in (histogram.reason(name, 0, 1, graph.operations, config) or "")


def test_another_stacks_counts_stand_beside_ours() -> None:
    """Calls and operations that differ, with both numbers."""
    before = Graph({"tanh": 70}, {"Tanh": 71, "Add": 5}, {"float32": 3}, 76)
    after = Graph({"tanh": 70}, {"Tanh": 70, "Add": 5}, {"float32": 2}, 75)
    found = histogram.beside(before, after, "fusion x", "its summary")
    assert [(one.name, one.before, one.after) for one in found.deviations] == [("operations.Tanh", 71, 70)]


def _one(x: Any, *args: Any, **kwargs: Any) -> Any:
    """Stand in for a norm, a rotation or an attention: a CPU would decompose it, where a GPU runs one kernel."""
    return mx.erf(x)


@pytest.fixture(scope="module")
def layers() -> list[Counter[str]]:
    """What every layer of e4b-4bit holds for one token, in its released types, besides those three."""
    model = skeleton.build(CONFIG)
    text, inner = CONFIG["text_config"], model.language_model.model
    cache = graphs._filled(model, text, 324)
    dtype = inner.norm.weight.dtype
    found = []
    with contextlib.ExitStack() as patched:
        for name in ("rms_norm", "rope", "scaled_dot_product_attention"):
            patched.enter_context(mock.patch.object(mx.fast, name, _one))
        # The first step casts and clips two weights of each layer for good.
        model.language_model(mx.array([[5]]), cache=cache)
        for layer, index in zip(inner.layers, inner.layer_idx_to_cache_idx, strict=True):
            planes = mx.zeros((text["altup_num_inputs"], 1, 1, text["hidden_size"]), dtype)
            per_layer = mx.zeros((1, 1, text["hidden_size_per_layer_input"]), dtype)
            parameters = [array for _, array in skeleton.named_arrays(layer.parameters())]
            known = [copy.copy(array) for array in (planes, per_layer, *parameters, *graphs._arrays(cache))]
            out = layer(planes, None, cache[index], per_layer)
            found.append(graphs._nodes([out, *known]) - graphs._nodes(known))
    return found


@pytest.mark.parametrize("name", sorted(histogram.LAYER))
def test_every_layer_holds_what_is_said(layers: list[Counter[str]], name: str) -> None:
    """Sparse and dense, sliding and full, with keys of its own and with shared ones."""
    assert len(layers) == 35
    assert {layer[name] for layer in layers} == {histogram.LAYER[name][0]}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Broadcast", ("12 a layer here", "105 of the attention", "28 around the layers", "which has 22 around")),
        ("AsType", ("7 a layer here", "as many a layer as published, which has 4 around")),
        ("Multiply", ("7 a layer here", "35 of the attention", "11 around the layers", "room for 5 a layer at most")),
        ("Add", ("8 a layer here", "1 around the layers", "published: 10 a layer and 1;")),
    ],
)
def test_a_published_count_is_taken_apart(name: str, parts: tuple[str, ...]) -> None:
    """Ours and theirs, in a layer and around the layers, add up to both counts."""
    said = histogram.reason(name, PUBLISHED[name], H100.operations[name], {"RMSNorm": 1, "RoPE": 1}, CONFIG)
    assert said is not None
    for part in parts:
        assert part in said
    assert ("attention" in said) is (name in histogram.ATTENTION)


def test_a_device_with_fused_attention_has_none_of_its_parts() -> None:
    """Metal: what is left around the layers is what ours does there."""
    whole = {"RMSNorm": 1, "RoPE": 1, "ScaledDotProductAttention": 35}
    said = histogram.reason("Multiply", 205, 7 * 35 + 11, whole, CONFIG) or ""
    assert "attention" not in said
    assert "11 around the layers" in said
