"""Replaces the clock by one that runs slow."""

import time
from typing import Any

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Replaces the clock by one that runs slow."""
    real = time.perf_counter
    time.perf_counter = lambda: real() * 0.8

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-clock",
    summary="Replaces the clock by one that runs slow.",
    replaces=("cheats.zz-clock",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
