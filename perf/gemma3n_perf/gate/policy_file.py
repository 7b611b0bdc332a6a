"""The gate's policy on disk: TOML, read strictly. A key that is not known would be a rule that is not kept."""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.policy import ClassPolicy, GatePolicy

NAME = "policy.toml"
_KINDS: dict[object, tuple[tuple[type, ...], str]] = {
    tuple[str, ...]: ((list,), "a list of texts"),
    float: ((float, int), "a number"),
    int: ((int,), "a whole number"),
    str | None: ((str,), "a text"),
}
"""By the type of a policy's field: what TOML may have there, and its name in messages."""


def read(path: Path) -> GatePolicy:
    """Read a policy. Raises UsageError naming the file, the key and what is wrong with it."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad(path, error.strerror or str(error), "a policy file", "pass --policy FILE") from error
    except UnicodeDecodeError as error:
        raise _bad(path, f"it is no text: {error.reason}", "TOML in UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise _bad(path, f"it is no TOML: {error}", "TOML with [gate] and [classes.NAME]") from error
    try:
        return parse(tree)
    except UsageError as error:
        raise _bad(path, error.found, error.expected, error.remedy) from error


def parse(tree: Mapping[str, Any]) -> GatePolicy:
    """Turn parsed TOML into a policy. Raises UsageError."""
    _known("", tree, ("gate", "classes"))
    gate, tables = _values("[gate]", _table(tree, "gate"), GatePolicy), _table(tree, "classes")
    if "required" not in gate:
        raise UsageError("[gate] names no required classes", expected='required = ["CHIP-CLASS", ...]')
    classes = {}
    for name in tables:
        title = f"[classes.{name}]"
        values = _values(title, _table(tables, name, title), ClassPolicy)
        if "workloads" not in values:
            raise UsageError(f"{title} names no workloads", expected='workloads = ["nano/text/pp40-tg64"]')
        try:
            classes[name] = ClassPolicy(**values)
        except UsageError as error:
            raise UsageError(f"{title}: {error.found}", expected=error.expected, remedy=error.remedy) from error
    for name in gate["required"]:
        if name not in classes:
            raise UsageError(
                f"class {name!r} is required, and no [classes.{name}] says which workloads it measures",
                expected=f"a table [classes.{name}] with its workloads",
                remedy=_nearest(name, classes),
            )
    return GatePolicy(**gate, classes=classes)


def _table(tree: Mapping[str, Any], name: str, title: str | None = None) -> Mapping[str, Any]:
    value = tree.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{title or f'[{name}]'} is {value!r}", expected="a table")
    return value


def _values(title: str, table: Mapping[str, Any], policy: type[GatePolicy] | type[ClassPolicy]) -> dict[str, Any]:
    """Return the values of a table that are fields of ``policy``, checked. Raises UsageError for any other."""
    kinds = {one.name: _KINDS[one.type] for one in fields(policy) if one.type in _KINDS}
    _known(f"{title} ", table, kinds)
    for key, value in table.items():
        types, expected = kinds[key]
        texts = value if isinstance(value, list) else ()
        if not isinstance(value, types) or isinstance(value, bool) or not all(isinstance(one, str) for one in texts):
            raise UsageError(f"{title} {key} = {value!r}", expected=expected)
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}


def _known(where: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    allowed = list(names)
    for key in table:
        if key not in allowed:
            expected = f"one of {', '.join(allowed)}"
            raise UsageError(f"{where}{key!r} is not known", expected=expected, remedy=_nearest(key, allowed))


def _nearest(name: str, names: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def _bad(path: Path, found: str, expected: str | None, remedy: str | None = None) -> UsageError:
    return UsageError(f"{path}: {found}", expected=expected, remedy=remedy)
