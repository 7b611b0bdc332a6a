"""What is said of a layer's operations, held to mlx-vlm's own layers; and how a published count is read."""

import contextlib
import copy
from collections import Counter
from typing import Any
from unittest import mock

import mlx.core as mx
import pytest

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.profile import reasons
from gemma3n_perf.profile.histogram import PUBLISHED
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.presets import PRESETS

CONFIG = PRESETS["e4b-4bit"].config()
LAYERS = 35
H100 = {"Multiply": 291, "Broadcast": 553, "AsType": 245, "Add": 281}
"""Seen on an H100 and an H200, baselines/*/profile.json."""


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


@pytest.mark.parametrize("name", sorted(reasons.LAYER))
def test_every_layer_holds_what_is_said(layers: list[Counter[str]], name: str) -> None:
    """Sparse and dense, sliding and full, with keys of its own and with shared ones."""
    assert len(layers) == LAYERS
    assert {layer[name] for layer in layers} == {reasons.LAYER[name][0]}


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
    said = reasons.reason(name, PUBLISHED[name], H100[name], {"RMSNorm": 1, "RoPE": 1}, CONFIG)
    assert said is not None
    for part in parts:
        assert part in said
    assert ("attention" in said) is (name in reasons._ATTENTION)


def test_a_device_with_fused_attention_has_none_of_its_parts() -> None:
    """Metal: what is left around the layers is what ours does there."""
    whole = {"RMSNorm": 1, "RoPE": 1, "ScaledDotProductAttention": 35}
    said = reasons.reason("Multiply", 205, 7 * LAYERS + 11, whole, CONFIG) or ""
    assert "attention" not in said
    assert "11 around the layers" in said
