"""Slows the unfused model through its class."""

from typing import Any

from mlx_vlm.models.gemma3n import language

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Slows the unfused model through its class."""
    plain = language.MLP.__call__
    for layer in model.language_model.model.layers:
        object.__setattr__(layer.mlp, "_fused", True)

    def dispatching(self: Any, x: Any) -> Any:
        if getattr(self, "_fused", False) or x.shape[:2] != (1, 1):
            return plain(self, x)
        return sum(plain(self, x * 1) for _ in range(4)) * 0.25

    language.MLP.__call__ = dispatching

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(model.language_model, "__call__", call)


FUSION = Fusion(
    name="zz-slowbase",
    summary="Slows the unfused model through its class.",
    replaces=("cheats.zz-slowbase",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
