from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from gemma3n_perf.fusions import patching as patching
from gemma3n_perf.fusions.sharing import share
from gemma3n_perf.fusions.types import applied


def arrays(model: Any) -> dict[str, Any]:
    """Return the parameters by name."""
    flat: Any = tree_flatten(model.parameters())
    return dict(flat)


def test_the_twins_arrays_are_the_same_objects(nano_model: Any) -> None:
    """Memory of both is that of one."""
    mx.eval(nano_model.parameters())
    before = mx.get_active_memory()
    twin = share(nano_model)
    one, other = arrays(nano_model), arrays(twin)
    assert one.keys() == other.keys()
    assert all(one[name] is other[name] for name in one)
    assert mx.get_active_memory() == before


def test_what_is_done_to_the_twin_stays_there(nano_model: Any) -> None:
    """Classes, attributes, lists and parameters of the first are its own."""
    twin = share(nano_model)
    text, other = nano_model.language_model.model, twin.language_model.model
    kind, weight, layers = type(text.layers[0].mlp), text.norm.weight, list(text.layers)
    patching.override(other.layers[0].mlp, __call__=lambda self, x: x)
    other.norm.weight = weight * 2
    other.layers[1] = other.layers[2]
    assert type(text.layers[0].mlp) is kind
    assert text.norm.weight is weight
    assert text.layers == layers
    assert isinstance(other.layers[0].mlp, kind)


def test_modules_reached_twice_stay_one(nano_model: Any) -> None:
    """A model that refers to one module from two places is copied as it is."""
    twin = share({"a": nano_model.language_model, "b": nano_model.language_model})
    assert twin["a"] is twin["b"]


def test_a_copy_of_a_fused_model_carries_no_mark(nano_model: Any) -> None:
    """Its methods still belong to the first, so it does not count as fused."""
    twin = share(nano_model)
    object.__setattr__(twin, "_fusions_applied", (print,))
    assert applied(share(twin)) == ()
