"""What every fusion's test asks: the graph as declared, each step within rounding, other models untouched."""

from functools import cache
from typing import Any

import mlx.core as mx
import numpy as np

from gemma3n_perf.decode import graph
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.fusions import parity, registry, stepwise
from gemma3n_perf.fusions.parity_rules import Parity, judge
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.workload.presets import PRESETS

POSITION = 44
EDGES = (127, 255)
"""One step below nano's sliding window, and one below the cache's growth."""


@cache
def _unfused() -> Graph:
    return graph.count(PRESETS["nano"].config(), position=POSITION)


def complaints(name: str) -> tuple[str, ...]:
    """What the graph of a decode token of nano does not keep of the fusion's declaration."""
    fusion = registry.get(name)
    after = graph.count(PRESETS["nano"].config(), position=POSITION, apply=fusion.apply)
    return fusion.graph.check(_unfused(), after)


def compared(model: Any, fusion: Fusion, *, steps: int = parity.STEPS) -> Parity:
    """Apply ``fusion`` to a twin of ``model`` that shares its forged weights, and compare the two."""
    mx.eval(model.language_model.parameters())
    twin = share(model)
    before, active = parity.parameters(twin), parity.settled_bytes()
    fusion.apply(twin)
    changed = parity.changed(before, parity.parameters(twin))
    return parity.parity(model, twin, forged=True, weights_changed=changed, active_before=active, steps=steps)


def worst_ratio(model: Any, name: str) -> float:
    """The largest difference in units of what rounding allows, over steps at both edges."""
    twin = share(model)
    registry.get(name).apply(twin)
    return worst_of(model, twin)


def worst_of(model: Any, twin: Any, starts: tuple[int, ...] = EDGES, steps: int = 3) -> float:
    """The same for two models."""
    worst = 0.0
    for start in starts:
        found = list(stepwise.walk(model, twin, start, steps, parity.PERTURBATION))
        judged = judge(
            found, [], greedy={}, histories=(), forged=True, starts=starts, perturbation=parity.PERTURBATION,
            own_type="float32", weights_changed=(), unfused_moved=0.0, memory_ratio=1.0, leaked_bytes=0,
        )  # fmt: skip
        worst = max(worst, judged.worst_ratio, judged.worst_cache_ratio)
    return worst


def assert_leaves_others_alone(model: Any, name: str) -> None:
    """Weights, classes and logits of the unfused model are those from before, and the twin's weights are the same."""
    before = stepwise.logits(model, 5, stepwise.filled(model, 20))
    kinds = {type(module) for module in model.language_model.modules()}
    twin = share(model)
    shared = parity.parameters(twin)
    registry.get(name).apply(twin)
    assert parity.changed(shared, parity.parameters(twin)) == ()
    stepwise.logits(twin, 5, stepwise.filled(twin, 20))
    assert {type(module) for module in model.language_model.modules()} == kinds
    np.testing.assert_array_equal(stepwise.logits(model, 5, stepwise.filled(model, 20)), before)
