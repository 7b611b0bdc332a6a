"""Multiplies with the head as it is, by the way of coarse."""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Multiplies with the head as it is, by the way of coarse."""

    head = model.language_model.model.embed_tokens
    packed = (head.weight, head.scales, head.biases)

    def as_linear(original: Any, x: Any) -> Any:
        out = mx.quantized_matmul(x, *packed, transpose=True, group_size=head.group_size, bits=head.bits)
        return out * 1

    patching.wrap(head, "as_linear", as_linear)


FUSION = Fusion(
    name="zz-fine",
    summary="Multiplies with the head as it is, by the way of coarse.",
    replaces=("cheats.zz-fine",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
