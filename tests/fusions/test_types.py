from types import SimpleNamespace

import pytest

from gemma3n_perf.decode.types import Graph
from gemma3n_perf.fusions.types import Declared, Fusion, applied


def graph(nodes: int = 10, rope: int = 2, kernels: int = 0) -> Graph:
    """Return a graph with these counts."""
    return Graph({"rope": rope}, {"RoPE": rope, "CustomKernel": kernels}, {}, nodes)


def fusion(name: str, log: list[str]) -> Fusion:
    """Return a fusion that writes its name into ``log``."""
    return Fusion(name, "", (), Declared(), __file__, apply=lambda model: log.append(name))


@pytest.mark.parametrize(
    ("declared", "after", "said"),
    [
        (Declared(fewer=("nodes", "calls.rope")), graph(9, 1), ""),
        (Declared(fewer=("nodes",)), graph(10), "nodes: 10 before, 10 after; fewer were declared"),
        (Declared(fewer=("calls.rope",)), graph(9, 3), "calls.rope: 2 before, 3 after"),
        (Declared(more=("operations.CustomKernel",)), graph(kernels=1), ""),
        (Declared(more=("operations.CustomKernel",)), graph(5), "operations.CustomKernel: 0 before, 0 after"),
        (Declared(more=("operations.Unheard",)), graph(5), "operations.Unheard: 0 before, 0 after"),
        (Declared(same=True), graph(), ""),
        (Declared(same=True), graph(rope=1), "a knob changes none"),
    ],
)
def test_what_was_declared_must_be_seen(declared: Declared, after: Graph, said: str) -> None:
    """A fallback measured against itself shows as counts that did not change."""
    complaints = "; ".join(declared.check(graph(), after))
    assert (said in complaints) if said else not complaints


def test_applying_leaves_a_mark_in_order() -> None:
    """A twin in another type can be fused alike."""
    log: list[str] = []
    model, twin = SimpleNamespace(), SimpleNamespace()
    for name in ("a", "b"):
        fusion(name, log).apply(model)
    for apply in applied(model):
        apply(twin)
    assert log == ["a", "b", "a", "b"]
    assert len(applied(twin)) == 2
    assert applied(SimpleNamespace()) == ()
