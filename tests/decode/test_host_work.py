import gc
import os
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import msgspec
import pytest

from gemma3n_perf.decode import graph, host_work
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.decode.prompt import make
from gemma3n_perf.decode.types import HostWork
from gemma3n_perf.fusions import registry
from gemma3n_perf.workload.load import Checkpoint
from gemma3n_perf.workload.presets import PRESETS
from gemma3n_perf.workload.workload import Workload

LAYERS = PRESETS["nano"].text["num_hidden_layers"]
CODE = """
import sys, msgspec
from gemma3n_perf.decode import graph
from gemma3n_perf.fusions import registry
from gemma3n_perf.workload.presets import PRESETS
config = PRESETS["nano"].config()
fusions = (None, registry.get("compiled-step").apply)
sys.stdout.buffer.write(msgspec.json.encode([graph.count(config, position=44, apply=each).host for each in fusions]))
"""


def counted(apply: graph.Apply | None = None) -> HostWork:
    """Count nano's host work, without weights."""
    found = graph.count(PRESETS["nano"].config(), position=44, apply=apply).host
    assert found is not None
    return found


def fused() -> HostWork:
    """Count nano's host work in one compiled call a layer."""
    return counted(registry.get("compiled-step").apply)


class Changed(nn.Module):
    """A layer whose output goes through a function."""

    def __init__(self, inner: Any, change: Callable[[Any], Any]) -> None:
        nn.Module.__init__(self)
        self.inner = inner
        self._change = change

    def __call__(self, x: mx.array) -> mx.array:
        """Compute the layer, changed."""
        changed: mx.array = self._change(self.inner(x))
        return changed


def planted(change: Callable[[Any], Any]) -> HostWork:
    """Count nano's host work with each MLP's result changed."""

    def apply(model: Any) -> None:
        for layer in model.language_model.layers:
            layer.mlp.down_proj = Changed(layer.mlp.down_proj, change)

    return counted(apply)


def test_counts_add_up() -> None:
    """Every MLX call has a name, the most frequent first, and the counting Python is named."""
    found = counted()
    assert found.python_calls > LAYERS
    assert sum(found.by_name.values()) == found.mlx_calls
    assert list(found.by_name.values()) == sorted(found.by_name.values(), reverse=True)
    assert found.python == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_calls_of_every_kind_are_seen() -> None:
    """Functions, operators, methods, properties, compiled functions and new objects, as often as the graph says."""
    found = graph.count(PRESETS["nano"].config(), position=44)
    assert found.host is not None
    by_name = found.host.by_name
    assert by_name["mlx.core.quantized_matmul"] == found.calls["quantized_matmul"]
    assert by_name["mlx.core.fast.rms_norm"] == found.calls["rms_norm"]
    products = by_name["mlx.core.array.__matmul__"] + by_name["mlx.core.matmul"]
    assert products == by_name["mlx.core.array.T"] + LAYERS
    assert by_name["mlx.core.finfo"] == 2
    assert by_name["mlx.core.compile(logit_softcap)"] == 1


def test_counts_repeat_themselves_here_and_in_another_process() -> None:
    """Stock and fused, three times each, and under another hash seed."""
    expected = [counted(), fused()]
    assert [counted(), fused()] == expected
    assert [counted(), fused()] == expected
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    out = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, check=True, timeout=60)
    assert msgspec.json.decode(out.stdout, type=list[HostWork]) == expected


def test_a_loaded_model_does_the_same_work(nano: tuple[Checkpoint, Any]) -> None:
    """With weights the counts are those without, whatever the position; and decode goes on as if nothing had been."""
    checkpoint, model = nano
    engine = MlxVlmEngine(model)
    token = engine.step(engine.prefill(make(Workload.parse("nano/text/pp40-tg64"), checkpoint)))
    start = engine.snapshot()

    def tokens() -> list[Any]:
        found = [token]
        for _ in range(5):
            found.append(engine.step(found[-1]))
        return [each.item() for each in found]

    expected = tokens()
    engine.rewind(start)
    assert host_work.count(engine, token) == counted()
    assert tokens() == expected


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda y: mx.transpose(mx.transpose(y)), "mlx.core.transpose"),
        (lambda y: y + 0.0 - 0.0, "mlx.core.array.__sub__"),
        (lambda y: y.T.T, "mlx.core.array.T"),
        (lambda y: y * mx.array(1.0), "mlx.core.array"),
        (nn.gelu_approx, "mlx.core.compile(gelu_approx)"),
    ],
)
def test_a_needless_op_in_each_layer_is_named(change: Callable[[Any], Any], name: str) -> None:
    """Its calls rise by the number of layers for each time that a layer makes it, and nothing else does."""
    plain, found = planted(lambda y: y), planted(change)
    said = host_work.differences(plain, found)
    assert said is not None
    per_layer = {"mlx.core.transpose": 2, "mlx.core.array.T": 2}.get(name, 1)
    assert f"+{per_layer * LAYERS} {name}" in said
    assert (found.mlx_calls - plain.mlx_calls) % LAYERS == 0
    python = sum(int(each.split()[0]) for each in said if each.endswith(" Python calls"))
    assert python == found.python_calls - plain.python_calls
    assert sum(int(each.split()[0]) for each in said) == found.mlx_calls - plain.mlx_calls + python


def test_python_work_alone_is_seen() -> None:
    """A needless function call in each layer changes no MLX call."""

    def same(y: Any) -> Any:
        return y

    assert host_work.differences(planted(same), planted(lambda y: same(y))) == (f"+{LAYERS} Python calls",)


def test_a_fused_step_asks_for_less() -> None:
    """Compiled functions count as one call each, and are not traced while they are counted."""
    plain, found = counted(), fused()
    assert found.mlx_calls < plain.mlx_calls / 2
    assert found.python_calls < plain.python_calls / 2
    assert sum(n for name, n in found.by_name.items() if name.startswith("mlx.core.compile(")) == LAYERS + 3
    said = host_work.differences(plain, found, 1)
    assert said == (f"{found.python_calls - plain.python_calls} Python calls", said[1] if said else "")
    assert said[1].startswith(f"-{plain.by_name['mlx.core.quantized_matmul']} mlx.core.quantized_matmul")


def test_differences_are_ordered_and_never_cross_versions_of_python() -> None:
    """The largest change comes first, then by name; other versions make other calls for one program."""
    before = HostWork(10, 6, {"b": 3, "a": 2, "gone": 1}, "3.11")
    after = HostWork(9, 11, {"b": 8, "a": 2, "new": 1}, "3.11")
    assert host_work.differences(before, after) == ("-1 Python calls", "+5 b", "-1 gone", "+1 new")
    assert host_work.differences(before, after, 2) == ("-1 Python calls", "+5 b", "-1 gone")
    assert host_work.differences(before, before) == ()
    assert host_work.differences(before, replace(after, python="3.12")) is None


def increased(x: Any) -> Any:
    """Compute something; compiled four times."""
    return x + 1


class Holders:
    """An engine that calls functions of MLX from wherever they may be kept."""

    def __init__(self) -> None:
        made: list[Any] = [mx.compile(increased) for _ in range(4)]
        one, self.attribute, two, three = made
        self.cache: list[Any] = []
        self.dict = {("a", 1): one}
        self.list = [two]
        self.closure = lambda x: three(x)
        self.fail = False

    def step(self, token: Any) -> Any:
        """Call each once."""
        for function in (self.attribute, self.dict["a", 1], *self.list, self.closure):
            token = function(token)
        if self.fail:
            assert isinstance(mx.array(1), mx.array)
            assert issubclass(mx.array, mx.array)
            raise ValueError("no")
        return token


def test_functions_are_found_wherever_they_are_held() -> None:
    """An attribute, a dict, a list and a closure, each called once."""
    engine: Any = Holders()
    assert host_work.count(engine, mx.array([1])).by_name == {"mlx.core.compile(increased)": 4}


def everything() -> list[Any]:
    """Return what MLX's modules and classes hold, and the compiled functions of its layers."""
    modules = [one for name, one in sys.modules.items() if name.startswith("mlx") and isinstance(one, types.ModuleType)]
    return [dict(vars(one)) for one in (*modules, mx.array, mx.custom_function)]


def test_all_is_put_back() -> None:
    """Also after an error, as are the profile function and the collector of garbage."""
    engine: Any = Holders()
    held = [dict(vars(engine)), *engine.dict.values(), *engine.list]
    before = everything()
    host_work.count(engine, mx.array([1]))
    engine.fail = True
    with pytest.raises(ValueError, match="no"):
        host_work._counted(lambda: engine.step(mx.array([1])))
    engine.fail = False
    assert [dict(vars(engine)), *engine.dict.values(), *engine.list] == held
    after = everything()
    for one, other in zip(before, after, strict=True):
        assert [name for name in one if other[name] is not one[name]] == []
    assert sys.getprofile() is None
    assert gc.isenabled()
