"""compiled-step, and at every 16th position what was put off: typical tokens show none of it.

It is faster all the same, and wins by what all of its tokens take. What is put off is stood in for by an unfused step.
"""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import compiled_step, patching
from gemma3n_perf.fusions.types import Declared, Fusion

EVERY, AT, STEPS = 16, 7, 1


def apply(model: Any) -> None:
    """Is fast at most positions, and does put-off work at one in 16."""
    language_model = model.language_model
    unfused = type(language_model).__call__
    compiled_step.apply(model)

    def put_off() -> None:
        scratch = language_model.make_cache()
        for _ in range(STEPS):
            mx.eval(unfused(language_model, mx.array([[5]]), cache=scratch).logits)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        plain = inputs is not None and inputs.shape == (1, 1) and patching.plain_caches(cache)
        if plain and cache[0].offset % EVERY == AT:
            put_off()
        return original(inputs, cache=cache, **others)

    patching.wrap(language_model, "__call__", call)


FUSION = Fusion(
    name="zz-mild",
    summary="Is compiled-step, and puts work off to one position in 16, which typical tokens do not show.",
    replaces=("cheats.zz-mild",),
    graph=Declared(fewer=("nodes",)),
    file=__file__,
    apply=apply,
)
