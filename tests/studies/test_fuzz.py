import io
import json
import random
import re
from pathlib import Path

import pytest

from gemma3n_perf.errors import NotMeasuredError
from studies import fuzz, fuzz_guided
from studies.fuzz import Found
from studies.fuzz_readers import Reader, readers

ROOT = Path(__file__).parents[2]
READERS = list(readers(ROOT))
NAMES = [one.name for one in READERS]


@pytest.mark.parametrize("reader", READERS, ids=lambda one: one.name)
def test_a_seed_is_read_and_damage_is_refused_by_name(reader: Reader, tmp_path: Path) -> None:
    """Some of it may be read all the same; nothing else may happen."""
    assert fuzz.read(reader, reader.seed, "seed", tmp_path / "seed.json")[::2] == (False, "")
    found = [fuzz.attempt(reader, number, tmp_path) for number in range(100)]
    assert [fault for _, _, fault in found if fault] == []
    assert reader.name == "holder of the lock" or any(refused for refused, _, _ in found)


def test_an_input_follows_from_its_number() -> None:
    """So that what was found can be found again."""
    chance = random.Random
    seeds = [fuzz.damaged(b'{"a": [1, 2.5]}', chance(number)) for number in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_no_input_depends_on_those_before_it() -> None:
    """A value that one input got and damaged further is not the next one's."""
    before = repr(fuzz._VALUES)
    for number in range(3000):
        fuzz.damaged(b'{"a": {"b": [1, {"c": 2}]}, "d": 3}', random.Random(number))
    assert repr(fuzz._VALUES) == before


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("holder of the lock", b'{"pid": "\xff"}'),
        ("result of asv", b'{"version": 2, "params": 1e999}'),
        ("accepted loss", b"a = " + b"[" * 9999),
        *((name, b"[" * 99999) for name in NAMES),
    ],
)
def test_what_was_a_fault_is_none(name: str, data: bytes, tmp_path: Path) -> None:
    """And deep nesting is refused by all."""
    assert fuzz.read(READERS[NAMES.index(name)], data, "it", tmp_path / "it.json")[2] == ""


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [("result of asv", rb"0\.011", b"1" * 400), ("noise", rb'"log_ratios": \[\s*[-\d.e]+', b'"log_ratios": [1e200')],
)
def test_a_number_that_is_too_large_is_refused(name: str, before: bytes, after: bytes, tmp_path: Path) -> None:
    """Whether JSON has a bound for it or not; and no warning of an overflow is seen."""
    reader = READERS[NAMES.index(name)]
    data, changes = re.subn(before, after, reader.seed, count=1)
    assert changes == 1
    assert fuzz.read(reader, data, "it", tmp_path / "it.json")[::2] == (True, "")


def test_what_processes_found_is_added_up() -> None:
    """Counts are sums, the rest is the most; the same fault twice is one."""
    found = Found(2, 1, 0.5, ["7: boom"], 3)
    found.merge(Found(1, 1, 0.25, ["7: boom", "9: bang"], 4, (10, 12)))
    assert found == Found(3, 2, 0.5, ["7: boom", "9: bang"], 4, (10, 12))
    assert str(found) == "3 inputs, 2 refused, 0.50 s and 4 MiB at most, 2 faults"


def test_inputs_are_guided_where_atheris_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere its absence is said."""
    monkeypatch.setattr(fuzz_guided, "find_spec", lambda _: None)
    with pytest.raises(NotMeasuredError, match="atheris is not installed"):
        list(fuzz_guided.results(NAMES[:1], 1.0, 1, tmp_path))


def test_it_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    """And says what each reader did."""
    record = tmp_path / "fuzz.json"
    for inputs, jobs in ((len(NAMES), 1), (2 * len(NAMES), 2)):
        out = io.StringIO()
        fuzz.main(["--inputs", str(inputs), "--jobs", str(jobs), "--record", str(record)], out)
        kept = json.loads(record.read_bytes())
        assert {name: one["inputs"] for name, one in kept.items()} == dict.fromkeys(NAMES, inputs // len(NAMES))
        assert f"session: {inputs // len(NAMES)} inputs" in out.getvalue()
