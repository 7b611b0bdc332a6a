"""How every record is read and written: JSON that is either wholly understood or refused, with the place of the fault.

An unknown field is refused by name: a reader that passed over it would answer as if it had not been written.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from gemma3n_perf.errors import MalformedRecordError, PerfError
from gemma3n_perf.store.files import Disk, contents, write_over

_T = TypeVar("_T")
_LARGEST = 2**63 - 1
_type_info = cache(inspect.type_info)
_PLAIN = (inspect.FloatType, inspect.StrType, inspect.BoolType, inspect.NoneType)


@dataclass(frozen=True, slots=True)
class Flaw:
    """One fault: what was ``found``, what ``expected`` (empty: a whole record of the kind), and the JSON path there."""

    found: str
    expected: str = ""
    place: str = ""


MOST_VALUES = 5_000_000
"""Of a record, more or less: each takes some hundred bytes of memory. A campaign of 300 duels holds a tenth of it."""


@dataclass(frozen=True, slots=True)
class Codec(Generic[_T]):
    """How one kind of record is read and written.

    ``kind`` is the record's type; ``schema`` the number of its layout, None for a layout without one, and ``schema_at``
    where that stands. ``expected`` says what writes such records, ``remedy`` what to do about a bad one.
    ``flaws`` names what is wrong with a record of the right type. ``lay_out`` turns a record into JSON (default:
    indented by one). ``renamed`` has, by the type that holds them, the names of fields in older records and what they
    are called today. Of the types in ``foreign``, which belong to another tool, only the fields that they have here are
    read. ``unfold`` turns JSON as it is stored into that of the type, in place, and raises ValueError where it cannot.
    """

    kind: type[_T]
    schema: int | None
    expected: str
    remedy: str
    schema_at: tuple[str, ...] = ("schema",)
    flaws: Callable[[_T], Iterable[Flaw]] = lambda _: ()
    lay_out: Callable[[_T], bytes] = lambda record: indented(record)
    renamed: Mapping[type, Mapping[str, str]] = field(default_factory=dict)
    foreign: frozenset[type] = frozenset()
    unfold: Callable[[Any], None] = lambda tree: None

    def decode(self, data: bytes, source: str) -> _T:
        """Return the record in ``data``. Raises MalformedRecordError naming ``source``, the place and the fault."""
        return self.checked(self.typed(data, source), source)

    def typed(self, data: bytes, source: str) -> _T:
        """Return a record without unknown fields, its values not yet ``checked``. Raises MalformedRecordError."""
        values = data.count(b",") + data.count(b"[") + data.count(b"{")
        if values > MOST_VALUES:
            raise self.malformed(
                source, Flaw(f"it holds {values:,} values, and {MOST_VALUES:,} are the most that is read")
            )
        try:
            tree = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            flaw = _not_finite(data) or Flaw(f"not JSON: {error}")
            raise self.malformed(source, flaw) from error
        schema = tree
        for name in self.schema_at:
            schema = schema.get(name) if isinstance(schema, dict) else None
        if self.schema is not None and isinstance(schema, int) and schema != self.schema:
            place = f"$.{'.'.join(self.schema_at)}" if len(self.schema_at) > 1 else ""
            remedy = f"read it with the release that wrote it, or else {self.remedy}"
            raise self.malformed(source, Flaw(f"schema {schema}", f"schema {self.schema}", place), remedy)
        try:
            self.unfold(tree)
        except (ValueError, OverflowError) as error:
            raise self.malformed(source, Flaw(str(error))) from error
        kind: Any = self.kind
        for flaw in self._unknown(tree, _type_info(kind), "$"):
            raise self.malformed(source, flaw)
        try:
            return msgspec.convert(tree, self.kind, str_keys=True)
        except (msgspec.ValidationError, OverflowError) as error:
            text, _, place = str(error).partition(" - at ")
            raise self.malformed(source, Flaw(text, place=place.strip("`"))) from error

    def checked(self, record: _T, source: str) -> _T:
        """Return a record if its values can be believed. Raises MalformedRecordError for its first flaw."""
        for flaw in self.flaws(record):
            raise self.malformed(source, flaw)
        return record

    def read(self, path: Path) -> _T:
        """Return the record in a file. Raises MalformedRecordError."""
        return self.decode(self.bytes_of(path), str(path))

    def find(self, path: Path) -> _T | None:
        """Return the record in a file, or None where there is no such file. Raises MalformedRecordError."""
        try:
            return self.read(path)
        except MalformedRecordError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def bytes_of(self, path: Path) -> bytes:
        """Return what a file holds. Raises MalformedRecordError where it cannot be read."""
        try:
            return contents(path)
        except OSError as error:
            raise self.malformed(str(path), Flaw(f"cannot be read: {error.strerror or error}")) from error

    def encode(self, record: _T) -> bytes:
        """Return a record as it is stored. Raises MalformedRecordError for one that could not be read back."""
        data = self.lay_out(record)
        self.decode(data, "this record")
        return data

    def write(self, path: Path, record: _T, disk: Disk | None = None) -> Path:
        """Put a record in place of the last one, whole or not at all. Raises DiskFullError, MalformedRecordError."""
        write_over(path, self.encode(record), disk)
        return path

    def malformed(self, source: str, flaw: Flaw, remedy: str | None = None) -> MalformedRecordError:
        """Return the error for a flaw of ``source``."""
        place = f"{flaw.place}: " if flaw.place not in ("", "$") else ""
        return MalformedRecordError(
            f"{source}: {place}{flaw.found}", expected=flaw.expected or self.expected, remedy=remedy or self.remedy
        )

    def _unknown(self, tree: Any, info: inspect.Type, place: str) -> Iterator[Flaw]:
        """Yield the unknown fields and the integers without bound in the JSON of a type, and rename older fields."""
        inside: Iterable[tuple[str, Any, inspect.Type]] = ()
        match info:
            case inspect.DataclassType() | inspect.StructType() if isinstance(tree, dict):
                types = {one.encode_name: one.type for one in info.fields}
                for old, name in self.renamed.get(info.cls, {}).items():
                    if old in tree and name not in tree:
                        tree[name] = tree.pop(old)
                for name in (name for name in tree if name not in types and info.cls not in self.foreign):
                    yield Flaw("no such field is known", f"only {', '.join(types)}", f"{place}.{name}")
                inside = ((f".{name}", value, types[name]) for name, value in tree.items() if name in types)
            case inspect.UnionType(types=kinds):
                inside = (("", tree, one) for one in kinds)
            case inspect.TupleType(item_types=kinds) if isinstance(tree, list):
                inside = ((f"[{i}]", value, one) for i, (value, one) in enumerate(zip(tree, kinds, strict=False)))
            case inspect.VarTupleType(item_type=one) if isinstance(tree, list) and not isinstance(one, _PLAIN):
                inside = ((f"[{i}]", value, one) for i, value in enumerate(tree))
            case inspect.DictType(value_type=one) if isinstance(tree, dict):
                inside = ((f".{name}", value, one) for name, value in tree.items())
            case inspect.IntType() if isinstance(tree, int) and abs(tree) > _LARGEST:
                yield Flaw("the integer is too large", f"at most {_LARGEST}", place)
        for step, value, one in inside:
            if not isinstance(one, _PLAIN):
                yield from self._unknown(value, one, f"{place}{step}")


def usable(read: Callable[[], _T], faults: list[str] | None) -> _T | None:
    """Return what can be read; where it cannot be used, None, and ``faults`` says why; without those, it is raised."""
    try:
        return read()
    except PerfError as error:
        if faults is None:
            raise
        faults.append(error.found)
        return None


def indented(record: object, indent: int = 1) -> bytes:
    """Return ``record`` as JSON over several lines, with a newline at the end."""
    return msgspec.json.format(msgspec.json.encode(record), indent=indent) + b"\n"


def not_finite(value: Any, place: str = "$") -> Iterator[Flaw]:
    """Yield every number in a JSON tree that is infinite or none at all."""
    if isinstance(value, float) and not math.isfinite(value):
        yield Flaw(f"the number is {value}", "a finite number", place)
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from not_finite(inner, f"{place}.{name}")
    for index, inner in enumerate(value) if isinstance(value, list | tuple) else ():
        yield from not_finite(inner, f"{place}[{index}]")


def _not_finite(data: bytes) -> Flaw | None:
    """Python's own json writes NaN and Infinity, which are not JSON: say where rather than "not JSON"."""
    try:
        return next(not_finite(json.loads(data)), None)
    except (ValueError, RecursionError):
        return None
