"""A token's products from the config, against MLX's own counts, the checkpoints' headers and the published bytes."""

import pytest

from gemma3n_perf.decode import graph
from gemma3n_perf.profile.products import bytes_by_part, expected_calls, products
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.presets import PRESETS


@pytest.mark.parametrize("name", ["nano", "e2b-4bit"])
def test_the_config_calls_for_what_the_graph_holds(name: str) -> None:
    """Products, norms, rotations and attentions, derived and counted."""
    config = PRESETS[name].config()
    found = graph.count(config, position=44)
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
    assert 0 <= (streamed - total) / streamed < (0.02 if name == "nano" else 0.01)


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
