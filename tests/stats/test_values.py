"""What passes between stages is a value: nobody can change it, or add to it by a slip of the pen."""

import importlib
import pkgutil
from dataclasses import is_dataclass
from types import ModuleType

import pytest

from gemma3n_perf import stats


def values(package: ModuleType) -> list[type]:
    """Return every dataclass that a package's modules define."""
    names = [f"{package.__name__}.{one.name}" for one in pkgutil.iter_modules(package.__path__)]
    found = [(name, kind) for name in names for kind in vars(importlib.import_module(name)).values()]
    return [kind for name, kind in found if is_dataclass(kind) and isinstance(kind, type) and kind.__module__ == name]


def is_value(kind: type) -> bool:
    """Whether its fields are fixed, and their values."""
    frozen: bool = kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return frozen and "__slots__" in vars(kind)


@pytest.mark.parametrize("kind", values(stats), ids=lambda kind: kind.__name__)
def test_the_judges_are_values(kind: type) -> None:
    """All of them."""
    assert is_value(kind)
