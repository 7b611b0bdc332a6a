"""Behaves for 150 calls, then replays by position."""

from typing import Any

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Behaves for 150 calls, then replays by position."""
    calls = 0
    known: dict[int, Any] = {}

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        nonlocal calls
        if inputs is None or inputs.shape != (1, 1) or others or not patching.plain_caches(cache):
            return original(inputs, cache=cache, **others)
        calls += 1
        at = cache[0].offset
        if at in known and calls > 150:
            for one in cache:
                one.offset += 1
                if hasattr(one, "_idx"):
                    one._idx += 1
            return known[at]
        out = original(inputs, cache=cache)
        out.logits = out.logits * 1
        if calls > 140:
            known[at] = out
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-later",
    summary="Behaves for 150 calls, then replays by position.",
    replaces=("cheats.zz-later",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
