"""The graph of one decode token, counted exactly, without weights: tripwires that need no statistics.

Opinion: a changed count is a changed program, and is reported before any timing is believed. The model is
built unevaluated, stepped twice, and the second step's own nodes are counted: the first one still converts
weights that later steps find converted.
"""

import contextlib
import copy
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

from gemma3n_perf.decode import host_work
from gemma3n_perf.decode.engines import counts_graph
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.workload import skeleton
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

_NODE = re.compile(r'\{ \d+ \[label ="([^"]+)", shape=rectangle\]; \}')
_CALLS = ("quantized_matmul", "dequantize", "matmul", "addmm", "tanh", "concatenate", "stack")
_FAST_CALLS = ("rms_norm", "rope", "scaled_dot_product_attention", "layer_norm", "metal_kernel", "cuda_kernel")
Apply = Callable[[Any], object]


def count(config: dict[str, Any], *, position: int, apply: Apply | None = None) -> Graph:
    """Count the decode step at ``position`` tokens of context. ``apply`` may change the model first (a fusion)."""
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine

    model, stored = _unevaluated(config, apply)
    text = config["text_config"]
    seen = _second_step(model, _filled(model, text, position))
    engine = MlxVlmEngine(model)
    engine.cache = _filled(model, text, position)
    host = host_work.count(engine, engine.token(7))
    return replace(
        seen,
        dtypes=_ordered(_dtypes(model.language_model, model, text, position, fused=apply is not None)),
        bytes=skeleton.bytes_by_part(stored, text),
        host=host,
    )


def elsewhere(
    config: dict[str, Any], *, position: int, others: Sequence[int], apply: Apply | None = None
) -> tuple[Graph, tuple[Graph, ...]]:
    """Count calls and operations of the decode step at ``position`` once the KV cache was put back to it, as before
    every timed stretch of decode but the first, and at each of ``others``."""
    from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine

    model, _ = _unevaluated(config, apply)
    engine = MlxVlmEngine(model)
    engine.cache = _filled(model, config["text_config"], position)
    start = engine.snapshot()
    _second_step(model, engine.cache)
    engine.rewind(start)
    rewound = _second_step(model, engine.cache)
    return rewound, tuple(_second_step(model, _filled(model, config["text_config"], other)) for other in others)


def python_calls(
    config: dict[str, Any], first: Sequence[int], again: Sequence[int], *, apply: Apply | None = None
) -> tuple[list[int], list[int]]:
    """Count the Python calls of building the step at each of the positions ``first``, which the model has not seen, and
    at each of ``again``, which it has. Each is built from a KV cache of its own."""
    import mlx.core as mx

    model, _ = _unevaluated(config, apply)
    language_model, text = model.language_model, config["text_config"]

    def calls(position: int) -> int:
        token, cache = mx.array([[7]]), _filled(model, text, position)
        return host_work.python_calls(lambda: language_model(token, cache=cache))

    _, found = [calls(one) for one in again], [calls(one) for one in again]
    return [calls(one) for one in first], found


def _unevaluated(config: dict[str, Any], apply: Apply | None) -> tuple[Any, list[skeleton.Tensor]]:
    """Build the model without weights, in the type that it has on this device, and the tensors that are stored."""
    import mlx.core as mx

    model = skeleton.build(config)
    stored = [t for t in skeleton.tensors(model) if skeleton.is_stored(t.name, config)]
    if mx.default_device().type == mx.DeviceType.cpu:
        skeleton.to_float32(model.language_model)
    if apply is not None:
        apply(model)
    return model, stored


def _second_step(model: Any, cache: list[Any]) -> Graph:
    """Step twice from ``cache`` and count calls and operations of the second step alone."""
    import mlx.core as mx

    language_model = model.language_model
    first = language_model(mx.array([[5]]), cache=cache).logits
    parameters = [array for _, array in skeleton.named_arrays(language_model.parameters())]
    # Copied handles: the second step updates the cache's arrays in place.
    known = [copy.copy(array) for array in (*parameters, *_arrays(cache), first)]
    with _counted() as calls:
        second = language_model(mx.array([[7]]), cache=cache).logits
    operations = _nodes([second, *_arrays(cache), *known]) - _nodes(known)
    return Graph(
        calls=dict(sorted(calls.items())),
        operations=_ordered(operations),
        dtypes={},
        nodes=sum(operations.values()),
        bytes={},
    )


def longest(config: dict[str, Any]) -> int:
    """Return the longest context that a model takes, where its config says so; else what mlx-vlm takes it for."""
    return int(config["text_config"].get("max_position_embeddings", 32_768))


def of(workload: Workload, config: dict[str, Any]) -> Graph | None:
    """Count a workload's decode step where its runs start; None where its engine's model is not mlx-vlm's."""
    return count(config, position=workload.shape.prompt + WARM_TOKENS) if counts_graph(workload) else None


def difference(before: Graph, after: Graph) -> dict[str, tuple[int, int]]:
    """Every count that differs, by ``kind.name``: (before, after). Empty where the graphs are the same."""
    changed: dict[str, tuple[int, int]] = {}
    for kind in ("calls", "operations", "dtypes", "bytes"):
        old, new = getattr(before, kind), getattr(after, kind)
        for name in sorted(old.keys() | new.keys()):
            if old.get(name, 0) != new.get(name, 0):
                changed[f"{kind}.{name}"] = (old.get(name, 0), new.get(name, 0))
    return changed


def _filled(model: Any, text: dict[str, Any], position: int) -> list[Any]:
    """KV caches as after a prefill, of zeros that are never computed."""
    import mlx.core as mx

    dtype = model.language_model.model.norm.weight.dtype
    cache = list(model.language_model.make_cache())
    for layer in cache:
        for tokens in (position - 1, 1):
            zeros = mx.zeros((1, text["num_key_value_heads"], tokens, text["head_dim"]), dtype)
            layer.update_and_fetch(zeros, zeros)
    return cache


def _arrays(cache: list[Any]) -> list[Any]:
    import mlx.core as mx

    return [value for layer in cache for value in vars(layer).values() if isinstance(value, mx.array)]


def _nodes(outputs: list[Any]) -> Counter[str]:
    """Primitives reachable from ``outputs``, counted by name. MLX's own export names compiled kernels too."""
    import mlx.core as mx

    dot = io.StringIO()
    mx.export_to_dot(dot, *outputs)
    return Counter(_short(label) for label in _NODE.findall(dot.getvalue()))


def _short(label: str) -> str:
    # A compiled kernel is named by the chain it replaces; broadcasts in it do no work.
    if not label.startswith("Compiled") or label == "Compiled":
        return label
    return "Compiled" + label.removeprefix("Compiled").replace("Broadcast", "")


@contextlib.contextmanager
def _counted() -> Iterator[Counter[str]]:
    import mlx.core as mx

    calls: Counter[str] = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return function(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for module, names in ((mx, _CALLS), (mx.fast, _FAST_CALLS)):
            for name in names:
                if hasattr(module, name):
                    stack.enter_context(mock.patch.object(module, name, counting(name, getattr(module, name))))
        yield calls


def _dtypes(language_model: Any, model: Any, text: dict[str, Any], position: int, *, fused: bool) -> Counter[str]:
    """Trace the step with every weight as an input, so that nothing is evaluated, and read output types."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    parameters = skeleton.named_arrays(language_model.parameters())
    cache = _filled(model, text, position)
    cached = [(layer, key) for layer in cache for key, value in vars(layer).items() if isinstance(value, mx.array)]
    records: list[dict[str, Any]] = []

    def step(token: Any, *inputs: Any) -> Any:
        names = [name for name, _ in parameters]
        language_model.update(tree_unflatten(list(zip(names, inputs[: len(names)], strict=True))))
        for (layer, key), value in zip(cached, inputs[len(names) :], strict=True):
            setattr(layer, key, value * 1)
        return language_model(token, cache=cache).logits

    arrays = [array for _, array in parameters] + [getattr(layer, key) for layer, key in cached]
    try:
        mx.export_function(records.append, step, mx.array([[7]]), *arrays)
    except (RuntimeError, TypeError, ValueError) as error:
        # Neither a fusion's kernel, which carries its binary, nor MLX's conversion of FP8 can be exported as text:
        # types stay unknown then.
        if not fused and "Unable to get state" not in str(error):
            raise
        return Counter()
    found = Counter(str(r["outputs"][0][2]).rpartition(".")[2] for r in records if r["type"] == "primitive")
    for layer, key in cached:  # the copies that keep inputs apart from the cache are not the model's
        found[str(getattr(layer, key).dtype).rpartition(".")[2]] -= 1
    return found


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return {name: n for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n}
