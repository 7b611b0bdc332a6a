"""The streaming floor on the forged nano: the products of a token, all of them, and nothing else."""

import random
import time
from typing import Any

import mlx.core as mx
import pytest

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.profile import floor
from gemma3n_perf.profile.products import expected_calls
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
    setting = floor.Setting(
        model, checkpoint.config, checkpoint.bytes["streamed"], decode=lambda: 0.5, copy_bandwidth=lambda: 1e9, tokens=1
    )
    found = floor.measure(setting, time.perf_counter, Rounds(6, random.Random(1)))
    assert found.products == expected_calls(checkpoint.config)["quantized_matmul"] == 80
    assert found.streamed_bytes == checkpoint.bytes["streamed"]
    assert 0 < found.dispatch_s.low <= found.chain_s.high
    assert found.share.value == pytest.approx(found.chain_s.value / 0.5)
    assert found.gemv_bandwidth.low > 0
    assert found.bandwidth == pytest.approx(found.streamed_bytes / found.chain_s.value)
