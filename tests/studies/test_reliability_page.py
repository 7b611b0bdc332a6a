import io
import json
from pathlib import Path

import pytest

from studies import reliability_page
from studies.faults_record import FAULTS, Faults, Trial
from tests.duel.test_cheats import INVALID, NAMES
from tests.fakes import CHIP, STACK

ROOT = Path(__file__).parents[2]
DATE = "2026-11-27T00:00:00+00:00"
TRIALS = (
    Trial("driver-kill", "between", DATE, "a" * 40, -9, 20.0, 0.2),
    Trial("driver-kill", "writing", DATE, "a" * 40, -9, 20.0, 0.4),
    Trial("out-full", "writing", DATE, "b" * 40, 0, 20.0, 3.0, "win", "win", ("exit code 0", "the verdict win")),
    Trial("processes", "before", DATE, "b" * 40, missed="root may start as many processes as it likes"),
    Trial("of-older-days", "before", DATE, "b" * 40, 4, 20.0, 3.0),
)
RECORD = Faults(1, CHIP, STACK, "gemma3n-perf duel here here+plant:+25%", TRIALS)


def page(folder: Path, *records: Faults) -> str:
    """Return the page of records."""
    return reliability_page.build(ROOT, records, folder).decode()


def test_the_committed_page_is_current() -> None:
    """What the tests demand, and every committed record, is on it."""
    out = io.StringIO()
    assert reliability_page.main(["--check"], out) == 0, out.getvalue()


def test_every_cheat_is_there_with_what_is_demanded_of_it(tmp_path: Path) -> None:
    """The tests are read, so no other demand can be claimed."""
    text = page(tmp_path)
    assert f"{len(NAMES)} programs" in text
    rows = dict(
        zip(
            NAMES, (row for row in text.splitlines() if row.split(" ")[1:2] and row.split(" ")[1] in NAMES), strict=True
        )
    )
    for name in NAMES:
        reason = INVALID.get(f"zz-{name}")
        assert (f"invalid: {reason.split('|')[0]}" if reason else "win") in rows[name]


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    """Instead of a number."""
    text = page(tmp_path)
    assert "Not recorded yet on any chip class." in text
    assert "Not recorded yet: `python -m studies.fuzz` writes `docs/reliability/fuzz.json`." in text
    assert "- endurance: " in text
    (tmp_path / "endurance.json").write_text("{}")
    assert "- endurance: " not in page(tmp_path)
    assert "[endurance.json](reliability/endurance.json)" in page(tmp_path)


def test_faults_are_counted_by_name_and_wrong_ones_are_named(tmp_path: Path) -> None:
    """What was not tried counts as nothing, and is said; a fault that there is no more keeps its row."""
    text = page(tmp_path, RECORD)
    assert f"### {CHIP.chip_class}" in text
    assert "4 trials of 3 faults at 3 moments, 1 of them wrong; 2026-11-27 to 2026-11-27, commit aaaaaaaaaaaa, " in text
    assert "| 2 | -9 x2 | - | 0 s | 0 |" in text
    assert "| out-full | the disk of the folder of the record is full | 1 | 0 x1 | win x1 | 3 s | 1 |" in text
    assert "| of-older-days |  | 1 | 4 x1 |" in text
    assert "- out-full, while the record is written: exit code 0; the verdict win" in text
    assert "- processes, before the command is started: root may start" in text


def test_inputs_are_added_up(tmp_path: Path) -> None:
    """Of every reader."""
    one = {"inputs": 1500, "refused": 1200, "slowest_s": 0.25, "faults": []}
    (tmp_path / "fuzz.json").write_text(json.dumps({"session": one, "noise": one | {"faults": ["7: boom"]}}))
    text = page(tmp_path)
    assert "| session | 1,500 | 1,200 | 0.25 s | 0 |" in text
    assert "| **all** | 3,000 | 2,400 | 0.25 s | 1 |" in text


@pytest.mark.parametrize("records", [(), (RECORD,)])
def test_a_stale_page_is_named(tmp_path: Path, records: tuple[Faults, ...]) -> None:
    """Exit 5 until it is written again; twice the same from the same records."""
    baselines, docs, out = tmp_path / "baselines", tmp_path / "docs", io.StringIO()
    baselines.mkdir()
    for record in records:
        (baselines / "class").mkdir()
        FAULTS.write(baselines / "class" / "faults.json", record)
    options = ["--baselines", str(baselines), "--docs", str(docs)]
    assert reliability_page.main([*options, "--check"], out) == 5
    assert "reliability.md is not what the records give" in out.getvalue()
    assert reliability_page.main(options, out) == 0
    assert reliability_page.main([*options, "--check"], out) == 0
