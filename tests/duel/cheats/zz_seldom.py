"""Is fast at most positions, and does thirty steps' work at one in 64: all 64 together take longer.

A launch on a CPU is the middle of its pairs of one token, and shows nothing of the few.
"""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import compiled_step, patching
from gemma3n_perf.fusions.types import Declared, Fusion

EVERY, AT, STEPS = 64, 60, 30
"""Where it checks itself, and for how many steps of the unfused model: 31 % of 63 tokens are 20 of them."""


def apply(model: Any) -> None:
    """Is fast at most positions, and slow at a few."""
    language_model = model.language_model
    unfused = type(language_model).__call__
    compiled_step.apply(model)

    def check_itself() -> None:
        scratch = language_model.make_cache()
        for _ in range(STEPS):
            mx.eval(unfused(language_model, mx.array([[5]]), cache=scratch).logits)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        plain = inputs is not None and inputs.shape == (1, 1) and not others and patching.plain_caches(cache)
        if plain and cache[0].offset % EVERY == AT:
            check_itself()
        return original(inputs, cache=cache, **others)

    patching.wrap(language_model, "__call__", call)


FUSION = Fusion(
    name="zz-seldom",
    summary="Is fast at most positions, and so slow at one in 64 that all together take longer.",
    replaces=("cheats.zz-seldom",),
    graph=Declared(fewer=("nodes",)),
    file=__file__,
    apply=apply,
)
