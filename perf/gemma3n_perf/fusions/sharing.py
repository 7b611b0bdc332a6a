"""A second model over the same weights, so that fused and unfused can be held side by side."""

from typing import Any


def share(model: Any) -> Any:
    """A model object of its own whose parameters are the same ``mx.array`` objects; memory does not grow.

    ``model`` is mlx-vlm's Gemma3n or any tree of ``mlx.nn`` modules. Modules, lists and dicts are copied, so a
    fusion may replace or reclass any part of the copy; arrays and configs are not.
    """
    return _copied(model, {})


def _copied(value: Any, known: dict[int, Any]) -> Any:
    import mlx.nn as nn

    if isinstance(value, nn.Module):
        if id(value) not in known:
            twin = known[id(value)] = type(value).__new__(type(value))
            for key, each in vars(value).items():
                # A copy of a fused model is not one: its methods still work on the first one's parts.
                if key != "_fusions_applied":
                    object.__setattr__(twin, key, _copied(each, known))
            for key, each in value.items():
                dict.__setitem__(twin, key, _copied(each, known))
        return known[id(value)]
    if isinstance(value, list):
        return [_copied(each, known) for each in value]
    if isinstance(value, dict):
        return {key: _copied(each, known) for key, each in value.items()}
    if isinstance(value, set):
        return set(value)
    return value
