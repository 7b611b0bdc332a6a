"""Does nothing, and must never win."""

from typing import Any

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Does nothing, and must never win."""

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-placebo",
    summary="Does nothing, and must never win.",
    replaces=("cheats.zz-placebo",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
