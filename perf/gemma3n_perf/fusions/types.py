"""What a fusion is: a name, what it replaces, what must change in the graph, where it is on, how it is applied.

Opinion: a fusion says beforehand what it does to the graph of a decode token, so that a fallback measured against
itself, or a path that never ran, shows before any timing is believed.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gemma3n_perf.decode.types import Graph
from gemma3n_perf.hardware.types import Chip


@dataclass(frozen=True, slots=True)
class Declared:
    """How the graph of one decode token must differ: ``fewer`` and ``more`` name counts, as ``calls.rope``.

    A name is ``calls.X`` (what the model asks of MLX), ``operations.X`` (what is dispatched) or ``nodes``.
    ``same`` says that nothing may differ at all: a knob, not a change of the program.
    """

    fewer: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    same: bool = False

    def check(self, before: Graph, after: Graph) -> tuple[str, ...]:
        """Complaints about the unfused graph and the fused one, as sentences; none where it is as declared."""
        if self.same:
            equal = (before.calls, before.operations) == (after.calls, after.operations)
            return () if equal else ("the graph changed, and a knob changes none",)
        complaints = []
        for names, word in ((self.fewer, "fewer"), (self.more, "more")):
            for name in names:
                old, new = _count(before, name), _count(after, name)
                if (new >= old) if word == "fewer" else (new <= old):
                    complaints.append(f"{name}: {old} before, {new} after; {word} were declared")
        return tuple(complaints)


def _count(graph: Graph, name: str) -> int:
    if name == "nodes":
        return graph.nodes
    kind, _, key = name.partition(".")
    counts: dict[str, int] = getattr(graph, kind)
    return counts.get(key, 0)


def _anywhere(chip: Chip) -> bool:
    return True


def _nothing(model: Any) -> None:
    """A knob acts through the environment, before the process starts."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """A named change of the decode graph of mlx-vlm's Gemma3n.

    ``replaces`` names mlx-vlm's functions that no longer run in decode; two fusions that replace the same one cannot be
    composed. ``enabled`` says on which chips it is on, ``where`` the same in words. ``apply`` changes one model in
    place, never a class or a global. ``env`` holds variables that must be set before the process starts.
    ``file`` is the module that defines it.
    """

    name: str
    summary: str
    replaces: tuple[str, ...]
    graph: Declared
    file: str
    enabled: Callable[[Chip], bool] = _anywhere
    where: str = "everywhere"
    apply: Callable[[Any], None] = _nothing
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Let ``apply`` leave its mark on the model, so that a twin in another type can be fused alike."""
        object.__setattr__(self, "apply", _marking(self.apply))


def _marking(apply: Callable[[Any], None]) -> Callable[[Any], None]:
    if hasattr(apply, "marks"):
        return apply

    def marking(model: Any) -> None:
        before = applied(model)
        apply(model)
        with contextlib.suppress(AttributeError, TypeError):
            object.__setattr__(model, "_fusions_applied", (*before, marking))

    marking.marks = True  # type: ignore[attr-defined]
    return marking


def applied(model: Any) -> tuple[Callable[[Any], None], ...]:
    """What was applied to this model, in order; a composition counts as one."""
    marks: tuple[Callable[[Any], None], ...] = getattr(model, "_fusions_applied", ())
    return marks
