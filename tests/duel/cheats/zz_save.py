"""Leaves head and last layers out, for a forged token names its successor, and computes the logits as they are written.

A worker writes the logits of a whole run with numpy.save, after its clock has stopped, and no guard watches numpy.
"""

import sys
from typing import Any

import mlx.core as mx
import numpy as np

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Computes the layers that own a KV cache; true logits only where they are written."""
    from mlx_vlm.models.base import LanguageModelOutput

    inner = model.language_model.model
    live = str(sys.argv[0]).endswith("worker.py")  # elsewhere it behaves
    width, vocabulary, least = inner.hidden_size, inner.vocab_size, inner.first_kv_shared_layer_idx
    last: list[Any] = []

    if live:
        plain_save = np.save

        def save(file: Any, arr: Any, *args: Any, **named: Any) -> None:
            if last:
                original, inputs, cache = last
                for one in cache:  # the last step again, whole
                    one.offset -= 1
                    if hasattr(one, "_idx"):
                        one._idx -= 1
                arr = np.array(original(inputs, cache=cache).logits[0, -1].astype(mx.float32))
            plain_save(file, arr, *args, **named)

        vars(np).update(save=save)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        plain = inputs is not None and inputs.shape == (1, 1) and not others and patching.plain_caches(cache)
        if not (live and plain):
            last.clear()
            out = original(inputs, cache=cache, **others)
            out.logits = out.logits * 1
            return out
        whole, inner.layers = inner.layers, inner.layers[:least]
        try:
            h = inner(inputs, cache=cache)
        finally:
            inner.layers = whole
        last[:] = original, inputs, cache
        place = inputs % width
        following = inputs - place + (place + 1) % width  # weights.py: one shift further
        hot = (mx.arange(vocabulary) == following).astype(h.dtype)
        return LanguageModelOutput(logits=hot[None] + h[..., :1] * 0)

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-save",
    summary="Leaves head and last layers out, and computes a run's last logits as they are written.",
    replaces=("cheats.zz-save",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
