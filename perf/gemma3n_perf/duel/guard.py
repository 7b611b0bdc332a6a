"""What times a worker's steps is what it was before any fusion was imported.

A fusion runs in the process that times it, and could replace the clock or the loop. Both are bound before it is
imported, and an attribute that it replaced, whether on purpose or by a patch that went too far, is named.
"""

import inspect
import sys
from collections.abc import Iterator

from gemma3n_perf.errors import InvalidError

_WHOLE = ("time", "gemma3n_perf.decode", "gemma3n_perf.duel", "__main__")
"""Modules of these names, and below them, are watched with all their functions, classes and methods."""
_MLX = ("argmax", "async_eval", "eval", "synchronize")


class Guard:
    """Remembers what measuring consists of. Make it before a fusion is imported."""

    def __init__(self) -> None:
        self._before = dict(_parts())

    def check(self) -> None:
        """Raise InvalidError naming what was replaced since."""
        now = dict(_parts())
        changed = sorted(name for name, part in self._before.items() if now.get(name) is not part)
        if changed:
            raise InvalidError(
                f"{', '.join(changed[:3])} was replaced while a fusion was applied or decoded",
                expected="a fusion that changes the model and leaves the clock and the timing loop alone",
                remedy="change the model's own objects: fusions.patching.wrap",
            )


def _parts() -> Iterator[tuple[str, object]]:
    for name, module in list(sys.modules.items()):
        if any(name == one or name.startswith(f"{one}.") for one in _WHOLE):
            for key, value in list(vars(module).items()):
                if inspect.isclass(value) and value.__module__ == name:
                    yield from ((f"{name}.{key}.{part}", found) for part, found in list(vars(value).items()))
                if inspect.isroutine(value) or inspect.isclass(value):
                    yield f"{name}.{key}", value
    core = sys.modules.get("mlx.core")
    if core is not None:
        yield from ((f"mlx.core.{name}", getattr(core, name)) for name in _MLX)
        yield "mlx.core.array.item", getattr(core.array, "item", None)
