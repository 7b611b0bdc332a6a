"""Multiplies with a head of 2 bits: less to read, and other logits."""

from typing import Any

import mlx.core as mx

from gemma3n_perf.fusions import patching
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Multiplies with a head of 2 bits: less to read, and other logits."""
    head = model.language_model.model.embed_tokens
    weight = head.weight
    if "scales" in head:
        weight = mx.dequantize(weight, head.scales, head.biases, group_size=head.group_size, bits=head.bits)
    packed = mx.quantize(weight, group_size=64, bits=2)

    def as_linear(original: Any, x: Any) -> Any:
        return mx.quantized_matmul(x, *packed, transpose=True, group_size=64, bits=2)

    patching.wrap(head, "as_linear", as_linear)


FUSION = Fusion(
    name="zz-coarse",
    summary="Multiplies with a head of 2 bits: less to read, and other logits.",
    replaces=("cheats.zz-coarse",),
    graph=Declared(),
    file=__file__,
    apply=apply,
)
