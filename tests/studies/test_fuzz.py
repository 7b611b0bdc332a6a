import io
import json
import random
from pathlib import Path

import pytest

from studies import fuzz

ROOT = Path(__file__).parents[2]
READERS = list(fuzz.readers(ROOT))
NAMES = [one.name for one in READERS]


@pytest.mark.parametrize("reader", READERS, ids=lambda one: one.name)
def test_damage_is_refused_by_name(reader: fuzz.Reader, tmp_path: Path) -> None:
    """Some of it may be read all the same; nothing else may happen."""
    found = [fuzz.attempt(reader, number, tmp_path) for number in range(100)]
    assert [fault for _, _, fault in found if fault] == []
    assert reader.name in ("comment", "holder of the lock") or any(refused for refused, _, _ in found)


def test_an_input_follows_from_its_number() -> None:
    """So that what was found can be found again."""
    chance = random.Random
    seeds = [fuzz.damaged(b'{"a": [1, 2.5]}', chance(number)) for number in (1, 1, 2)]
    assert seeds[0] == seeds[1] != seeds[2]


def test_it_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    """And says what each reader did."""
    record = tmp_path / "fuzz.json"
    for inputs in (len(NAMES), 2 * len(NAMES)):
        out = io.StringIO()
        fuzz.main(["--inputs", str(inputs), "--record", str(record)], out)
        kept = json.loads(record.read_bytes())
        assert {name: one["inputs"] for name, one in kept.items()} == dict.fromkeys(NAMES, inputs // len(NAMES))
        assert f"session: {inputs // len(NAMES)} inputs" in out.getvalue()
