"""How a fusion changes one model and no other: a subclass made for the one object."""

from collections.abc import Callable
from typing import Any


def override(module: Any, **methods: Any) -> None:
    """Give ``module`` its own subclass with ``methods``. Its class, and so every other model, stays as it was."""
    kind = type(module)
    object.__setattr__(module, "__class__", type(kind.__name__, (kind,), methods | {"__module__": kind.__module__}))


def wrap(module: Any, name: str, around: Callable[..., Any]) -> None:
    """Override one method with ``around(original, *args, **kwargs)``, where ``original`` is bound to ``module``."""
    kind = type(module)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(getattr(kind, name).__get__(self), *args, **kwargs)

    override(module, **{name: method})


def decode_with(language_model: Any, step: Callable[[Any, list[Any]], Any]) -> None:
    """Let ``step(token, cache)`` give the logits of one position of batch 1; prefill and the rest stay mlx-vlm's."""
    from mlx_vlm.models.base import LanguageModelOutput

    def call(original: Any, inputs: Any = None, inputs_embeds: Any = None, mask: Any = None, cache: Any = None,
             **kwargs: Any) -> Any:  # fmt: skip
        plain = inputs_embeds is None and mask is None and kwargs.get("per_layer_inputs") is None
        if plain and inputs is not None and inputs.shape == (1, 1) and plain_caches(cache):
            return LanguageModelOutput(logits=step(inputs, cache))
        return original(inputs, inputs_embeds=inputs_embeds, mask=mask, cache=cache, **kwargs)

    wrap(language_model, "__call__", call)


def plain_caches(caches: Any) -> bool:
    """Whether these are mlx-vlm's own single-sequence caches, already holding a prompt."""
    return isinstance(caches, list) and bool(caches) and all(plain_cache(cache) for cache in caches)


def plain_cache(cache: Any) -> bool:
    """Whether this is one of mlx-vlm's own single-sequence caches, not empty, with no kept prefix."""
    from mlx_vlm.models.cache import KVCache, RotatingKVCache

    return type(cache) in (KVCache, RotatingKVCache) and cache.keys is not None and not getattr(cache, "keep", 0)
