"""The streaming floor on the forged nano: the products of a token, all of them, and nothing else."""

import random
import time
from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.profile import floor
from gemma3n_perf.profile.floor import bytes_by_part, expected_calls, products
from gemma3n_perf.profile.rounds import Rounds
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.presets import PRESETS
from tests.decode import fakes


@pytest.fixture
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Any]:
    """Return nano, inspected and loaded."""
    return fakes.nano_model(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("name", ["nano", "e4b-4bit"])
def test_the_chain_multiplies_by_everything_that_a_token_does(name: str) -> None:
    """As many quantized products as decode has, on a model without weights; the KV-shared layers' k and v are not."""
    config = PRESETS[name].config()
    model = skeleton.build(config)
    x = mx.zeros((1, 1, config["text_config"]["hidden_size"]), mx.bfloat16)
    known = [x, *(array for _, array in skeleton.named_arrays(model.language_model.parameters()))]
    last, ends = floor.token_chain(model.language_model, x)
    nodes = graphs._nodes([last, *ends, *known]) - graphs._nodes(known)
    assert nodes["QuantizedMatmul"] == expected_calls(config)["quantized_matmul"]
    assert last.shape == x.shape
    glue = {kind: n for kind, n in nodes.items() if kind not in ("QuantizedMatmul", "Matmul")}
    # Only what MLX itself puts around a dense product of the small AltUp coefficients.
    assert set(glue) <= {"Transpose", "Flatten", "Unflatten", "Reshape", "Squeeze", "ExpandDims", "AsType"}


def test_a_floor_is_measured_beside_the_decode_it_bounds(nano: tuple[Checkpoint, Any]) -> None:
    """Paired in rounds; bytes are the headers'; the chain of real weights is finite and takes time."""
    checkpoint, model = nano
    found = floor.measure(
        model, checkpoint.config, checkpoint.bytes["streamed"], time.perf_counter, Rounds(6, random.Random(1)),
        decode=lambda: 0.5, copy_bandwidth=lambda: 1e9, tokens=1,
    )  # fmt: skip
    assert found.products == expected_calls(checkpoint.config)["quantized_matmul"] == 80
    assert found.streamed_bytes == checkpoint.bytes["streamed"]
    assert 0 < found.dispatch_s.low <= found.chain_s.high
    assert found.share.value == pytest.approx(found.chain_s.value / 0.5)
    assert found.gemv_bandwidth.low > 0


@pytest.mark.parametrize("name", ["nano", "e2b-4bit"])
def test_the_config_calls_for_what_the_graph_holds(name: str) -> None:
    """Products, norms, rotations and attentions, derived and counted."""
    config = PRESETS[name].config()
    found = graphs.count(config, position=44)
    assert {call: found.calls[call] for call in expected_calls(config)} == expected_calls(config)


def test_the_published_counts_come_out() -> None:
    """433, 357, 55 and 35 for e4b-4bit; a dense model has no quantized product."""
    assert list(expected_calls(PRESETS["e4b-4bit"].config()).values()) == [433, 357, 55, 35]
    assert expected_calls(PRESETS["e4b-bf16"].config())["quantized_matmul"] == 0


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_products_bytes_are_the_headers_but_for_norms(name: str) -> None:
    """Within 1 % of what the checkpoint's headers say a token streams (2 % for nano, whose norms weigh more)."""
    config = PRESETS[name].config()
    model = skeleton.build(config)
    streamed = skeleton.bytes_by_part(skeleton.tensors(model), config["text_config"])["streamed"]
    total = sum(bytes_by_part(config).values())
    assert 0 <= (streamed - total) / streamed < (0.02 if name.startswith("nano") else 0.01)


def test_the_published_decomposition_is_met() -> None:
    """lablup/mlxcel #345 streams 2,472 MB of e4b-4bit: its attention, MLP and head, without AltUp and the like."""
    parts = bytes_by_part(PRESETS["e4b-4bit"].config())
    ours = sum(parts[name] for name in ("attention", "mlp", "head"))
    assert ours == pytest.approx(2_472e6, rel=0.01)
    assert sum(parts.values()) == pytest.approx(2.52e9, rel=0.01)


def test_a_kv_shared_layer_multiplies_by_no_keys_and_values() -> None:
    """e4b's last 15 layers read another layer's cache."""
    made = {one.name: one.modules for one in products(PRESETS["e4b-4bit"].text)}
    assert (made["k_proj and v_proj"], made["o_proj"]) == (40, 35)
