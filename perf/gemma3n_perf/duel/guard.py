"""What times a worker's steps is what it was before any fusion was imported.

A fusion runs in the process that times it, and could replace the clock or the loop. Both are bound before it is
imported, and an attribute that it replaced, whether on purpose or by a patch that went too far, is named.
"""

import inspect
import sys
from collections.abc import Iterator, Mapping

from gemma3n_perf.errors import InvalidError

_WHOLE = ("time", "gemma3n_perf.decode", "gemma3n_perf.duel", "__main__")
"""Modules of these names, and below them, are watched with all their functions, classes and methods."""
_MLX = ("argmax", "async_eval", "eval", "synchronize")
_ARRAY = ("__getitem__", "astype", "item")
_NUMPY = ("array", "save")
"""By which logits get out of a process."""


class Guard:
    """Remembers what measuring consists of. Make it before a fusion is imported."""

    def __init__(self) -> None:
        self._before = list(_parts())

    def check(self) -> None:
        """Raise InvalidError naming what was replaced since. Called after every block, so it only compares."""
        changed = sorted(f"{owner}.{key}" for owner, space, key, part in self._before if space.get(key) is not part)
        if changed:
            raise InvalidError(
                f"{', '.join(changed[:3])} was replaced while a fusion was applied or decoded",
                expected="a fusion that changes the model and leaves the clock and the timing loop alone",
                remedy="change the model's own objects: fusions.patching.wrap",
            )


def _parts() -> Iterator[tuple[str, Mapping[str, object], str, object]]:
    """Owner, its namespace, the name there, and what it names."""
    for name, module in list(sys.modules.items()):
        if any(name == one or name.startswith(f"{one}.") for one in _WHOLE):
            space = vars(module)
            for key, value in list(space.items()):
                if inspect.isclass(value) and value.__module__ == name:
                    own = vars(value)
                    yield from ((f"{name}.{key}", own, part, found) for part, found in list(own.items()))
                if inspect.isroutine(value) or inspect.isclass(value):
                    yield name, space, key, value
    core = sys.modules.get("mlx.core")
    if core is not None:
        yield from (("mlx.core", vars(core), name, getattr(core, name)) for name in _MLX)
        yield from (("mlx.core.array", vars(core.array), name, vars(core.array).get(name)) for name in _ARRAY)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        yield from (("numpy", vars(numpy), name, getattr(numpy, name)) for name in _NUMPY)
