import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import DiskFullError, MalformedRecordError
from gemma3n_perf.store.codec import Codec, Flaw
from tests.fakes import edited
from tests.store.test_files import FullDisk


@dataclass(frozen=True, slots=True)
class Part:
    """What a record is made of."""

    seconds: float
    count: int = 0
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record with every kind of nesting that the suite's records have."""

    schema: int
    parts: tuple[Part, ...] = ()
    pair: tuple[Part, Part] | None = None
    by_name: dict[str, Part] | None = None


@dataclass(frozen=True, slots=True)
class Tools:
    """A file of another tool with a record of ours inside."""

    ours: Record


def _flaws(record: Record) -> Iterator[Flaw]:
    if not record.parts:
        yield Flaw("no parts", "one or more", "$.parts")


CODEC = Codec(Record, 3, "what the test writes", "restore it", flaws=_flaws, renamed={Part: {"duration": "seconds"}})
WHOLE = Record(3, (Part(1.0), Part(2.0, 1, "x")), (Part(1.0), Part(2.0)), {"a": Part(3.0)})
DATA = CODEC.encode(WHOLE)


def refused(data: bytes, codec: Codec[Any] = CODEC) -> MalformedRecordError:
    """Return the error of what cannot be read; it names the file, what would be right and what to do."""
    with pytest.raises(MalformedRecordError) as caught:
        codec.decode(data, "x.json")
    assert caught.value.found.startswith("x.json: ")
    assert caught.value.expected
    assert "restore it" in str(caught.value.remedy)
    return caught.value


def test_a_record_reads_back_as_it_was(tmp_path: Path) -> None:
    """From its bytes and from its file."""
    assert CODEC.decode(DATA, "x") == WHOLE
    assert CODEC.read(CODEC.write(tmp_path / "a" / "x.json", WHOLE)) == WHOLE
    assert DATA.startswith(b'{\n "schema": 3,\n')
    assert DATA.endswith(b"}\n")


@pytest.mark.parametrize("place", ["parts.0", "parts.1", "pair.1", "by_name.a", ""])
def test_an_unknown_field_is_named_by_its_place(place: str) -> None:
    """Wherever it is; and so are the fields that there are."""
    error = refused(edited(DATA, f"{place}.sconds".lstrip("."), 1.0))
    where = {"parts.0": "$.parts[0]", "parts.1": "$.parts[1]", "pair.1": "$.pair[1]", "by_name.a": "$.by_name.a"}
    assert f"{where.get(place, '$')}.sconds: no such field is known" in error.found
    assert error.expected == ("only seconds, count, note" if place else "only schema, parts, pair, by_name")


def test_of_another_tools_file_only_our_part_is_strict() -> None:
    """Its own fields are its own affair."""
    codec = Codec(Tools, 3, "x", "restore it", schema_at=("ours", "schema"), foreign=frozenset({Tools}))
    tree = {"theirs": {"more": 1}, "ours": json.loads(DATA)}
    assert codec.decode(json.dumps(tree).encode(), "x").ours == WHOLE
    tree["ours"]["more"] = 1
    assert "$.ours.more: no such field" in refused(json.dumps(tree).encode(), codec).found
    tree["ours"] = {"schema": 4}
    assert "$.ours.schema: schema 4" in refused(json.dumps(tree).encode(), codec).found


def test_another_schema_is_said_before_its_fields() -> None:
    """Fields that only the other layout has are no mistake."""
    error = refused(b'{"schema": 4, "more": []}')
    assert error.found == "x.json: schema 4"
    assert error.expected == "schema 3"
    assert "the release that wrote it" in str(error.remedy)


def test_older_names_of_fields_are_read() -> None:
    """A record is not lost by a new name."""
    assert CODEC.decode(b'{"schema": 3, "parts": [{"duration": 1.5}]}', "x").parts == (Part(1.5),)
    assert "$.parts[0].duration" in refused(b'{"schema": 3, "parts": [{"duration": 1.5, "seconds": 1.5}]}').found


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"schema": 3, "parts": [{"seconds": 1, "note": "\xff"}]}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"schema": 3, "parts": [' + b"[]," * 3_000_000, "values, and 5,000,000 are the most that is read"),
        (b"null", "Expected `object`, got `null`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{}", "missing required field `schema`"),
        (b'{"schema": "3"}', "$.schema: Expected `int`, got `str`"),
        (b'{"schema": 3, "parts": {}}', "$.parts: Expected `array`, got `object`"),
        (b'{"schema": 3, "parts": [{"seconds": null}]}', "$.parts[0].seconds: Expected `float`, got `null`"),
        (b'{"schema": 3, "parts": [{"seconds": NaN}]}', "$.parts[0].seconds: the number is nan"),
        (b'{"schema": 3, "parts": [{"seconds": -Infinity}]}', "$.parts[0].seconds: the number is -inf"),
        (b'{"schema": 3, "parts": [{"seconds": 1e999}]}', "$.parts[0].seconds: the number is inf"),
        (b'{"schema": 3, "parts": [{"seconds": 1%s}]}' % (b"0" * 400), "out of range"),
        (
            b'{"schema": 3, "parts": [{"seconds": 1, "count": 1%s}]}' % (b"0" * 400),
            "parts[0].count: the integer is too",
        ),
        (b'{"schema": 3, "parts": [{"seconds": 1, "count": 1%s}]}' % (b"0" * 5000), "out of range"),
        (b'{"schema": 1%s}' % (b"0" * 400), "schema 1000"),
        (b'{"schema": 3}', "$.parts: no parts"),
    ],
)
def test_whatever_the_bytes_are_the_error_is_named(data: bytes, said: str) -> None:
    """With the place, where there is one."""
    assert said in refused(data).found


def test_every_truncation_is_refused() -> None:
    """A file of which the end is missing is never taken for a whole one."""
    for end in range(len(DATA.strip())):
        refused(DATA[:end])


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    """Nor does a full disk leave half a record."""
    path = CODEC.write(tmp_path / "x.json", WHOLE)
    for bad in (Record(4), Record(3), Record(3, (Part(math.nan),))):
        with pytest.raises(MalformedRecordError):
            CODEC.write(path, bad)
    with pytest.raises(DiskFullError):
        CODEC.write(path, Record(3, (Part(9.0),)), FullDisk(0))
    assert path.read_bytes() == DATA


def test_a_file_that_is_not_there_is_named_or_none(tmp_path: Path) -> None:
    """As the caller needs it; what is there and cannot be read is an error either way."""
    assert CODEC.find(tmp_path / "x.json") is None
    with pytest.raises(MalformedRecordError, match=r"x\.json: cannot be read: No such file"):
        CODEC.read(tmp_path / "x.json")
    with pytest.raises(MalformedRecordError, match="cannot be read"):
        CODEC.find(tmp_path)
