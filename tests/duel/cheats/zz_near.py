"""compiled-step while the context is short, and mlx-vlm's own steps beyond: where nothing is timed.

An honest author may mean it so: what is fast where it was tried is on there alone.
"""

from typing import Any

from gemma3n_perf.fusions import compiled_step, patching
from gemma3n_perf.fusions.types import Declared, Fusion

LONGEST = 400


def apply(model: Any) -> None:
    """Compiled while the context is short."""
    language_model = model.language_model
    unfused = type(language_model).__call__
    compiled_step.apply(model)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        if patching.plain_caches(cache) and cache[0].offset > LONGEST:
            return unfused(language_model, inputs, cache=cache, **others)
        return original(inputs, cache=cache, **others)

    patching.wrap(language_model, "__call__", call)


FUSION = Fusion(
    name="zz-near",
    summary="Is compiled-step up to 400 positions of context, and nothing beyond.",
    replaces=("cheats.zz-near",),
    graph=Declared(fewer=("nodes",)),
    file=__file__,
    apply=apply,
)
