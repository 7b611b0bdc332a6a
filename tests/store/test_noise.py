import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import MalformedRecordError, NotComparableError
from gemma3n_perf.stats.spread import noise_floor
from gemma3n_perf.store import noise
from tests.fakes import CHIP, STACK, WORKLOAD, edited

DUELS = ((0.001, -0.002, 0.003), (0.002, -0.001, -0.003))
RECORD = noise.NoiseRecord(
    noise.SCHEMA, "2026-07-01T10:00:00+00:00", CHIP, STACK, noise_floor(DUELS, dt.date(2026, 7, 1)),
    tuple(noise.AaDuel(WORKLOAD, one, (4.0, 4.1, 4.2)) for one in DUELS),
)  # fmt: skip


def test_a_calibration_reads_back_as_it_was(tmp_path: Path) -> None:
    """From noise.json in the folder of its class, raw launches included."""
    path = noise.write(tmp_path, RECORD)
    assert path == tmp_path / CHIP.chip_class / "noise.json"
    assert noise.read(tmp_path, CHIP.chip_class) == RECORD


def test_a_class_without_calibration_has_none(tmp_path: Path) -> None:
    """That is no fault; the judge says that it is missing."""
    assert noise.read(tmp_path, CHIP.chip_class) is None


def test_a_new_calibration_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """One file a class."""
    noise.write(tmp_path, RECORD)
    newer = replace(RECORD, date="2026-08-01T10:00:00+00:00")
    noise.write(tmp_path, newer)
    assert noise.read(tmp_path, CHIP.chip_class) == newer


def test_a_floor_that_its_launches_do_not_give_is_refused(tmp_path: Path) -> None:
    """A floor edited by hand would pass or fail changes for ever."""
    path = noise.write(tmp_path, RECORD)
    tree = json.loads(path.read_bytes())
    tree["floor"]["launch_sd"] *= 0.5
    path.write_text(json.dumps(tree))
    with pytest.raises(MalformedRecordError, match="not what its duels give"):
        noise.read(tmp_path, CHIP.chip_class)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"schema": 1}'])
def test_a_malformed_calibration_is_named(tmp_path: Path, text: str) -> None:
    """With its path."""
    path = noise.write(tmp_path, RECORD)
    path.write_text(text)
    with pytest.raises(MalformedRecordError, match=r"noise\.json"):
        noise.read(tmp_path, CHIP.chip_class)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    """Its numbers may mean something else."""
    path = noise.write(tmp_path, RECORD)
    path.write_bytes(edited(path.read_bytes(), "schema", 2))
    with pytest.raises(MalformedRecordError, match="schema 2"):
        noise.read(tmp_path, CHIP.chip_class)


def test_the_noise_of_another_class_is_refused(tmp_path: Path) -> None:
    """However its file got there."""
    other = tmp_path / "cpu-other-2c"
    noise.write(tmp_path, RECORD).parent.rename(other)
    with pytest.raises(NotComparableError, match=CHIP.chip_class):
        noise.read(tmp_path, other.name)
