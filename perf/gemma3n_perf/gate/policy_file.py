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
_GATE = {one.name: one for one in fields(GatePolicy) if one.name != "classes"}
_KINDS: dict[str, tuple[type, ...]] = {
    "required": (list,),
    "minimum_effect": (float, int),
    "max_age_days": (int,),
    "sessions": (int,),
    "memory": (float, int),
    "mlx": (str,),
    "mlx_vlm": (str,),
}
_IN_WORDS = {list: "a list of texts", float: "a number", int: "a whole number", str: "a text"}


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
    gate, tables = _table(tree, "gate"), _table(tree, "classes")
    _known("[gate] ", gate, _GATE)
    if "required" not in gate:
        raise UsageError("[gate] names no required classes", expected='required = ["CHIP-CLASS", ...]')
    for key, value in gate.items():
        _of_kind(f"[gate] {key}", value, _KINDS[key])
    classes = {}
    for name in tables:
        table, title = _table(tables, name, f"[classes.{name}]"), f"[classes.{name}]"
        _known(f"{title} ", table, ("workloads", "runner"))
        if "workloads" not in table:
            raise UsageError(f"{title} names no workloads", expected='workloads = ["nano/text/pp40-tg64"]')
        for key, value in table.items():
            _of_kind(f"{title} {key}", value, (list,))
        try:
            classes[name] = ClassPolicy(tuple(table["workloads"]), tuple(table.get("runner", ())))
        except UsageError as error:
            raise UsageError(f"{title}: {error.found}", expected=error.expected, remedy=error.remedy) from error
    for name in gate["required"]:
        if name not in classes:
            raise UsageError(
                f"class {name!r} is required, and no [classes.{name}] says which workloads it measures",
                expected=f"a table [classes.{name}] with its workloads",
                remedy=_meant(name, classes),
            )
    return GatePolicy(**{**gate, "required": tuple(gate["required"]), "classes": classes})


def _table(tree: Mapping[str, Any], name: str, title: str | None = None) -> Mapping[str, Any]:
    value = tree.get(name, {})
    if not isinstance(value, dict):
        raise UsageError(f"{title or f'[{name}]'} is {value!r}", expected="a table")
    return value


def _known(where: str, table: Mapping[str, Any], names: Iterable[str]) -> None:
    allowed = list(names)
    for key in table:
        if key not in allowed:
            expected = f"one of {', '.join(allowed)}"
            raise UsageError(f"{where}{key!r} is not known", expected=expected, remedy=_meant(key, allowed))


def _meant(name: str, names: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else None


def _of_kind(where: str, value: object, kinds: tuple[type, ...]) -> None:
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if right and isinstance(value, list):
        right = all(isinstance(one, str) for one in value)
    if not right:
        raise UsageError(f"{where} = {value!r}", expected=_IN_WORDS[kinds[0]])


def _bad(path: Path, found: str, expected: str | None, remedy: str | None = None) -> UsageError:
    return UsageError(f"{path}: {found}", expected=expected, remedy=remedy)
