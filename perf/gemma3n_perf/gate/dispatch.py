"""How a fusion changes the decode graph: as it declares, where it is timed and at every other position.

What is timed is a few dozen positions of a context, again and again, after many rewinds. A fusion whose graph is
another one further on, or before a rewind, or that does more where it has not been, was not measured there, and a text
of its user's is. All of it is counted, on models without weights.
"""

import random
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

from gemma3n_perf.decode import graph as graphs
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.gate.facts import Dispatch

APART = 0.5
"""How far the changes at two places may differ, as a fraction of the change where the fusion is timed."""

STRETCH, MORE_CALLS = 160, 0.25
"""Positions at which the host's work is counted, and how much more it may be than where it is timed."""


def dispatched(
    config: dict[str, Any],
    fusion: Fusion,
    before: Graph,
    *,
    timed: range,
    apply: Callable[[Any], None],
    enabled: bool,
) -> Dispatch:
    """Count a fused model's decode step at the first position that is ``timed``, whose unfused one is ``before``, and
    both elsewhere.

    ``apply`` changes a model as the fusion does on this chip, where it is ``enabled`` or not. Raises what it raises.
    """
    position = timed.start
    after = graphs.count(config, position=position, apply=apply)
    complaints = (*fusion.graph.check(before, after), *computed(before, after)) if enabled else ()
    if enabled and not complaints:
        complaints = (*_elsewhere(config, (before, after), position, apply), *_along(config, timed, apply))
    return Dispatch(
        nodes=(before.nodes, after.nodes),
        changed=graphs.difference(before, after),
        complaints=complaints,
        knobs=dict(fusion.env) if enabled else {},
        same=fusion.graph.same,
    )


def computed(before: Graph, after: Graph) -> Iterator[str]:
    """Complain of a step that was not built but computed, so that its graph counts next to nothing.

    Compiling leaves products as they are, and a kernel that holds some is an operation too.
    """

    def products(graph: Graph) -> int:
        return sum(n for name, n in graph.operations.items() if "Matmul" in name or name in ("AddMM", "CustomKernel"))

    if products(before) and not products(after):
        yield f"no product is left of {products(before)}: what the fusion does is computed inside the step"


def _elsewhere(
    config: dict[str, Any], timed: tuple[Graph, Graph], position: int, apply: Callable[[Any], None]
) -> Iterator[str]:
    """Complain of a graph that changes otherwise after a rewind, at the end of the longest context, or at a position
    drawn anew between."""
    last = graphs.longest(config) - 2
    others = [random.SystemRandom().randrange(position, last), last] if position < last else []
    unfused, fused = (graphs.elsewhere(config, position=position, others=others, apply=one) for one in (None, apply))
    here = _change(*timed)
    places = ["after a rewind", *(f"at position {one}" for one in others)]
    pairs = zip((unfused[0], *unfused[1]), (fused[0], *fused[1]), strict=True)
    for place, pair in zip(places, pairs, strict=True):
        there = _change(*pair)
        apart = sum(abs(there.get(name, 0) - here.get(name, 0)) for name in here.keys() | there.keys())
        if apart > APART * sum(map(abs, here.values())):
            (old, new), (old_here, new_here) = (tuple(one.nodes for one in both) for both in (pair, timed))
            yield (
                f"{place} it makes {new} nodes of {old}, and {new_here} of {old_here} at position {position}: "
                "it is another program there"
            )


def _along(config: dict[str, Any], timed: range, apply: Callable[[Any], None]) -> Iterator[str]:
    """Complain of what the host does at other positions than those that are ``timed``, again and again: tracing a step
    anew where it has not been, or a check of itself now and then."""
    most = graphs.longest(config) - STRETCH - 2
    if most <= 1:
        return
    start = random.SystemRandom().randrange(1, most)
    elsewhere, here = range(start, start + STRETCH), timed[:STRETCH]
    found = [graphs.python_calls(config, elsewhere, here, apply=one) for one in (None, apply)]
    (old, old_here), (new, new_here) = ((fmean(first), fmean(again)) for first, again in found)
    if new / new_here > old / old_here + MORE_CALLS:
        yield (
            f"a step makes {new:.0f} Python calls at the {STRETCH} positions from {start} on, and {new_here:.0f} at "
            f"those that are timed, again and again; the unfused model's {old:.0f} and {old_here:.0f}"
        )


def _change(before: Graph, after: Graph) -> dict[str, int]:
    """By how many of each operation the graphs differ."""
    names = before.operations.keys() | after.operations.keys()
    return {name: after.operations.get(name, 0) - before.operations.get(name, 0) for name in names}
