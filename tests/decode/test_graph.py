import copy
import os
import subprocess
import sys
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from gemma3n_perf.decode import graph
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.prompt import make
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.workload import forge
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload


def counted(name: str, position: int = 44, **options: Any) -> Graph:
    """Count a preset's graph."""
    return graph.count(PRESETS[name].config(), position=position, **options)


def derived(text: dict[str, Any]) -> dict[str, int]:
    """Derive from the dimensions alone what one token asks of MLX, as the architecture is published."""
    layers = text["num_hidden_layers"]
    own_kv = layers - text["num_kv_shared_layers"]  # the others read another layer's keys and values
    planes = text["altup_num_inputs"]
    # LAUREL left and right; q and o; gate, up and down of the MLP; per-layer gate and projection; and the
    # modality router, once to predict and once to correct.
    linears = 2 + 2 + 3 + 2 + 2
    # Input, after attention, before and after the MLP, after the per-layer input; LAUREL; q; the router's, twice.
    norms = 5 + 1 + 1 + 2
    return {
        # k and v; then the projection of per-layer inputs, the planes in and out, and the tied head.
        "quantized_matmul": linears * layers + 2 * own_kv + 1 + 2 * (planes - 1) + 1,
        # k and v; then the per-layer projection's and the last one.
        "rms_norm": norms * layers + 2 * own_kv + 2,
        "rope": layers + own_kv,
        "scaled_dot_product_attention": layers,
        # The coefficients that mix the planes, once a layer, are never quantized: they are computed in float32.
        "matmul": layers,
        "dequantize": 2,  # a row of each embedding
    }


@pytest.mark.parametrize("name", ["nano", "e2b-4bit", "e4b-4bit"])
def test_calls_are_those_that_the_config_calls_for(name: str) -> None:
    """Every quantized product, norm, rotation and attention of the architecture is asked for exactly once."""
    expected = derived(PRESETS[name].text)
    found = counted(name)
    assert {call: found.calls[call] for call in expected} == expected


def test_the_derivation_gives_the_published_counts() -> None:
    """A second look at the derivation: these were seen on other engines too."""
    wanted = ("quantized_matmul", "rms_norm", "rope", "scaled_dot_product_attention")
    assert [derived(PRESETS["e4b-4bit"].text)[call] for call in wanted] == [433, 357, 55, 35]
    assert [derived(PRESETS["e2b-4bit"].text)[call] for call in wanted] == [378, 312, 50, 30]


def test_a_dense_model_multiplies_densely() -> None:
    """bf16 has the same norms, rotations and attentions, and no quantized product."""
    dense, quantized = counted("e4b-bf16"), counted("e4b-4bit")
    assert "quantized_matmul" not in dense.calls
    assert "QuantizedMatmul" not in dense.operations
    for call in ("rms_norm", "rope", "scaled_dot_product_attention"):
        assert dense.calls[call] == quantized.calls[call]


def test_operations_add_up_to_nodes_and_hold_every_product() -> None:
    """What is asked for is in the device's graph, whatever else is."""
    found = counted("nano")
    assert found.operations["QuantizedMatmul"] == found.calls["quantized_matmul"]
    assert sum(found.operations.values()) == found.nodes
    assert list(found.operations.values()) == sorted(found.operations.values(), reverse=True)


def test_bytes_count_what_is_stored() -> None:
    """nano stores no towers, and its parts are those that forging writes."""
    found = counted("nano").bytes
    assert found["vision"] == found["audio"] == 0
    assert found["total"] == forge.size(PRESETS["nano"])


def test_counting_repeats_itself() -> None:
    """Neither an earlier count nor another model's leaves a trace in the next."""
    first = counted("nano")
    counted("e2b-4bit")
    assert counted("nano") == first
    assert graph.difference(first, counted("nano")) == {}


def test_calls_do_not_depend_on_the_position() -> None:
    """Beyond the sliding window of 128 the program is the same."""
    assert counted("nano", 200).calls == counted("nano", 44).calls


def test_the_count_is_the_real_models(nano: tuple[Checkpoint, Any]) -> None:
    """The model that is measured asks for what the weightless one asks for."""
    checkpoint, model = nano
    engine = MlxVlmEngine(model)
    token = engine.step(engine.prefill(make(Workload.parse("nano/text/pp40-tg64"), checkpoint)))
    mx.eval(token)
    with graph._counted() as calls:
        mx.eval(engine.step(token))
    assert dict(calls) == counted("nano").calls


def test_counting_leaves_mlx_as_it_was() -> None:
    """The functions that were watched are back, also after an error."""
    before = (mx.quantized_matmul, mx.matmul, mx.fast.rms_norm, mx.fast.rope)

    def fail(model: Any) -> None:
        raise ValueError("no")

    counted("nano")
    with pytest.raises(ValueError, match="no"):
        counted("nano", apply=fail)
    assert (mx.quantized_matmul, mx.matmul, mx.fast.rms_norm, mx.fast.rope) == before


class Changed(nn.Module):
    """A layer whose output goes through a function."""

    def __init__(self, inner: Any, change: Any) -> None:
        nn.Module.__init__(self)
        self.inner = inner
        self._change = change

    def __call__(self, x: mx.array) -> mx.array:
        """Compute the layer, changed."""
        changed: mx.array = self._change(self.inner, x)
        return changed


def planted(change: Any) -> dict[str, tuple[int, int]]:
    """Return what differs when the last MLP of nano ends in a changed product."""

    def apply(model: Any) -> None:
        mlp = model.language_model.layers[-1].mlp
        mlp.down_proj = Changed(mlp.down_proj, change)

    return graph.difference(counted("nano"), counted("nano", apply=apply))


def test_an_extra_product_is_caught() -> None:
    """One more quantized product shows as one call, one operation and one output type."""
    found = planted(lambda inner, x: mx.maximum(inner(x), inner(x * 2)))
    calls = derived(PRESETS["nano"].text)["quantized_matmul"]
    assert found["calls.quantized_matmul"] == (calls, calls + 1)
    before, after = found["operations.QuantizedMatmul"]
    assert after == before + 1
    assert "dtypes.float32" in found


def test_an_extra_dense_product_is_caught() -> None:
    """A dense product shows as well, also where it is written with an operator."""
    found = planted(lambda inner, x: inner(x @ mx.ones((x.shape[-1], x.shape[-1]))))
    before, after = found["operations.Matmul"]
    assert after == before + 1
    assert "calls.quantized_matmul" not in found


def test_a_change_of_type_is_caught_with_no_change_of_calls() -> None:
    """A layer that computes in another type leaves its mark in the types, and the calls alone."""
    found = planted(lambda inner, x: inner(x).astype(mx.bfloat16))
    assert found["dtypes.bfloat16"] == (0, 1)
    assert not [name for name in found if name.startswith("calls.")]

    found = planted(lambda inner, x: (inner(x).astype(mx.float16) * 2).astype(mx.float32))
    assert found["dtypes.float16"][0] == 0
    assert found["dtypes.float16"][1] >= 2


def test_a_model_that_is_not_changed_does_not_differ() -> None:
    """An apply that changes nothing shows nothing."""
    assert graph.difference(counted("nano"), counted("nano", apply=lambda model: None)) == {}


def test_difference_tells_before_and_after() -> None:
    """A name that only one side has counts 0 on the other; nodes are their operations' sum."""
    before = Graph({"rope": 9, "gone": 1}, {"Add": 3}, {"float32": 3}, 3, {"total": 10})
    after = Graph({"rope": 8, "new": 2}, {"Add": 3}, {"float32": 3}, 3, {"total": 11})
    assert graph.difference(before, after) == {
        "calls.gone": (1, 0),
        "calls.new": (0, 2),
        "calls.rope": (9, 8),
        "bytes.total": (10, 11),
    }


def test_the_config_is_left_as_it_was() -> None:
    """Counting builds from the config and keeps nothing of it."""
    config = PRESETS["nano"].config()
    before = copy.deepcopy(config)
    graph.count(config, position=44)
    assert config == before


PEAK = """
import sys, pathlib, resource
from gemma3n_perf.__main__ import run
code = run(["graph", "e4b-4bit", "--json"], sys.stdout, sys.stderr)
status = pathlib.Path("/proc/self/status")
if status.exists():
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024, file=sys.stderr)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def test_e4b_is_counted_without_weights_in_a_gigabyte(tmp_path: os.PathLike[str]) -> None:
    """A fresh process with an empty cache needs no checkpoint, no GPU, under 1 GB and under 20 s."""
    environment = os.environ | {"GEMMA3N_PERF_CACHE": os.fspath(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PEAK], env=environment, capture_output=True, text=True, timeout=20, check=True
    )
    assert int(done.stderr.split()[-1]) < 10**9
    assert '"quantized_matmul": 433' in done.stdout
    assert os.listdir(tmp_path) == []
