"""Host work of one decode token: Python calls and MLX calls, exact, and the same on every run and in every process.

A step that is only built keeps the device idle, so its calls are all that the host does for a token. Python calls come
from a profile function. Such a function never sees MLX's own calls: its functions, operators and compiled functions are
no functions of CPython's kind. They are counted by stand-ins, put in their places for the length of one step.
"""

import collections
import contextlib
import copy
import gc
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from gemma3n_perf.decode.engine import Engine
from gemma3n_perf.decode.types import HostWork

WARM_STEPS = 2
"""Steps before the counted one: the first ones trace compiled functions, import modules and convert weights."""

_CREATED = ("array", "finfo", "iinfo")
_OBJECTS = ("array", "custom_function")
_UNTOUCHED = {"__init__", "__new__", "__doc__", "__module__"}


def count(engine: Engine, token: Any) -> HostWork:
    """Count the next step of ``engine``, fed ``token``. Nothing is evaluated, and the KV cache is left as it was.

    Weights may be unevaluated. A function of MLX is seen where a module, dict, list, closure or object holds it; not in
    a tuple, a class or a functools.partial. Not safe beside another thread that uses MLX.
    """
    kept = [_copied(vars(cache)) for cache in engine.cache]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(WARM_STEPS):
            engine.step(token)
            _rewind(engine, kept)
        python_calls, mlx_calls = _counted(lambda: engine.step(token))
    finally:
        _rewind(engine, kept)
        if collecting:
            gc.enable()
    by_name = dict(sorted(collections.Counter(mlx_calls).items(), key=lambda item: (-item[1], item[0])))
    return HostWork(python_calls, len(mlx_calls), by_name, f"{sys.version_info.major}.{sys.version_info.minor}")


def differences(before: HostWork, after: HostWork, largest: int = 5) -> tuple[str, ...] | None:
    """The ``largest`` changes as ``+60 mlx.core.transpose``, Python calls first; empty where the work is the same.

    None where the two were counted by different minor versions of Python, which make different calls for one program.
    """
    if before.python != after.python:
        return None
    names = before.by_name.keys() | after.by_name.keys()
    changes = {name: after.by_name.get(name, 0) - before.by_name.get(name, 0) for name in names}
    ordered = sorted(((name, n) for name, n in changes.items() if n), key=lambda item: (-abs(item[1]), item[0]))
    python = after.python_calls - before.python_calls
    found = [("Python calls", python)] if python else []
    return tuple(f"{n:+d} {name}" for name, n in [*found, *ordered[:largest]])


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    """Copied handles: a step updates the cache's arrays in place."""
    import mlx.core as mx

    return {key: copy.copy(value) if isinstance(value, mx.array) else value for key, value in state.items()}


def _rewind(engine: Engine, kept: list[dict[str, Any]]) -> None:
    for cache, state in zip(engine.cache, kept, strict=True):
        vars(cache).update(_copied(state))


def python_calls(step: Callable[[], object]) -> int:
    """Count the Python calls inside ``step``."""
    here = python_calls.__code__.co_filename
    seen: list[None] = []

    def see(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename != here:
            seen.append(None)

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        step()
    finally:
        sys.setprofile(before)
    return len(seen)


def _counted(step: Callable[[], object]) -> tuple[int, list[str]]:
    """Python calls inside ``step``, and the names of the MLX functions that it calls."""
    mlx: list[str] = []
    with _stand_ins(mlx):
        python = python_calls(step)
    return python, mlx


@contextlib.contextmanager
def _stand_ins(calls: list[str]) -> Iterator[None]:
    """Put a stand-in that appends its name to ``calls`` in place of each function of MLX; take all back at the end."""
    with contextlib.ExitStack() as stack:
        for place, key, value in list(_places(calls)):
            if isinstance(place, type):
                stack.callback(setattr, place, key, vars(place)[key])
                setattr(place, key, value)
            elif isinstance(place, types.CellType):
                stack.callback(setattr, place, key, place.cell_contents)
                place.cell_contents = value
            else:
                stack.callback(place.__setitem__, key, place[key])
                place[key] = value
        yield


def _places(calls: list[str]) -> Iterator[tuple[Any, Any, Any]]:
    """Every holder of a function of MLX, the key in it, and the stand-in that belongs there."""
    import mlx.core as mx

    for kind in (getattr(mx, name) for name in _OBJECTS):
        for name, member in vars(kind).items():
            full = f"{kind.__module__}.{kind.__name__}.{name}"
            if isinstance(member, property) and member.fget is not None:
                yield kind, name, property(_stand_in(full, member.fget, calls), member.fset, member.fdel)
            elif type(member) is type(mx.array.reshape) and name not in _UNTOUCHED:
                yield kind, name, _stand_in(full, member, calls)

    callables = (type(mx.add), type(mx.compile(abs)))
    objects = gc.get_objects()
    functions = [one for one in objects if type(one) in callables]
    modules = [vars(one) for one in objects if isinstance(one, types.ModuleType)]
    # Changing a class's dict behind its back would leave stale look-ups.
    classes = {id(one) for one in gc.get_referents(*(one for one in objects if isinstance(one, type)))}
    del objects
    seen = classes.union(map(id, (functions, *modules)))
    inside = [one for one in gc.get_referrers(*functions) if id(one) not in seen]
    # Made last: a stand-in is itself a closure that holds a function of MLX.
    others = {id(one): _stand_in(_name(one), one, calls) for one in functions}
    others |= {id(kind): _creating(kind, calls) for kind in (getattr(mx, name) for name in _CREATED)}
    for place in [*modules, *inside]:
        if isinstance(place, types.CellType):
            yield place, "cell_contents", others[id(place.cell_contents)]
            continue
        items = place if isinstance(place, dict | list) else getattr(place, "__dict__", {})
        pairs = enumerate(items) if isinstance(items, list) else items.items()
        yield from ((items, key, others[id(value)]) for key, value in pairs if id(value) in others)


def _name(function: Any) -> str:
    """``mlx.core.add`` for a function of MLX; ``mlx.core.compile(gelu_topk)`` for what it made of a Python function."""
    import mlx.core as mx

    if type(function) is type(mx.add):
        return f"{function.__module__ or 'mlx.core'}.{function.__name__ or 'kernel'}"
    return f"mlx.core.compile({getattr(function, '__qualname__', type(function).__name__)})"


def _stand_in(name: str, function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return function(*args, **kwargs)

    return call


def _creating(kind: type, calls: list[str]) -> type:
    """A class that makes objects of ``kind``, counted, and passes for it in ``isinstance``."""
    name = f"{kind.__module__}.{kind.__name__}"

    class Creating(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return kind(*args, **kwargs)

        def __instancecheck__(cls, one: object) -> bool:
            return isinstance(one, kind)

        def __subclasscheck__(cls, one: type) -> bool:
            return one is cls or issubclass(one, kind)

        def __getattr__(cls, attribute: str) -> Any:
            return getattr(kind, attribute)

    return Creating(kind.__name__, (), {})
