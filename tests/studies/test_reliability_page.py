import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from studies import reliability_page
from studies.endurance import Endurance
from studies.faults_record import FAULTS, Faults, Trial
from studies.mutation_record import KILLED, MUTATION, SURVIVED, Mutation
from studies.versions import VERSIONS, Tried, Versions
from tests.duel.test_cheats import INVALID, LISTED, TWINS
from tests.fakes import CHIP, STACK, WORKLOAD
from tests.studies.test_endurance import calm
from tests.studies.test_mutation import mutant

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


def page(folder: Path, *records: Faults, lasting: Sequence[Endurance] = ()) -> str:
    """Return the page of records."""
    return reliability_page.build(ROOT, records, lasting, folder)[reliability_page.PAGE].decode()


def test_the_committed_page_is_current() -> None:
    """What the tests demand, and every committed record, is on it."""
    out = io.StringIO()
    assert reliability_page.main(["--check"], out) == 0, out.getvalue()


def test_every_cheat_is_there_with_what_is_demanded_of_it(tmp_path: Path) -> None:
    """The tests are read, so no other demand can be claimed."""
    text = page(tmp_path)
    assert f"{len(LISTED)} programs" in text
    lines = (row for row in text.splitlines() if row.split(" ")[1:2] and row.split(" ")[1] in LISTED)
    rows = dict(zip(LISTED, lines, strict=True))
    for name in LISTED:
        reason = INVALID.get(f"zz-{name}")
        assert "never invalid" in rows[name] or name not in TWINS
        assert (f"invalid: {reason.split('|')[0]}" if reason else "win") in rows[name]


def test_what_is_not_recorded_is_said(tmp_path: Path) -> None:
    """Instead of a number."""
    text = page(tmp_path)
    assert "Not recorded yet on any chip class." in text
    assert "Not recorded yet: `python -m studies.fuzz` writes `docs/reliability/fuzz.json`." in text
    for study in ("endurance", "versions", "mutation"):
        assert f"Not recorded yet: `python -m studies.{study}" in text


def test_hours_of_duels_have_a_plot_and_what_was_wrong(tmp_path: Path) -> None:
    """Of each chip class."""
    files = reliability_page.build(ROOT, (), [calm()], tmp_path)
    (plot,) = [path for path in files if path != reliability_page.PAGE]
    assert str(plot) == f"plots/endurance-{CHIP.chip_class}.svg"
    text = page(tmp_path, lasting=[calm()])
    assert f"13 duels of this program against itself, on `{WORKLOAD}`, 20 s of measuring each" in text
    assert "mean effect is +0.015 % [-0.2" in text
    assert f"]({plot})" in text
    assert "Nothing grew by more than is allowed (within a part 5 % and 16 MiB of memory, 2 open files, 1 MiB" in text
    assert "- Wrong: part 1: 2 processes were left" in page(tmp_path, lasting=[calm(left=[0] * 12 + [2])])


def test_versions_and_mutants_are_on_it(tmp_path: Path) -> None:
    """With what failed, what is missing, what survived, and why the others may."""
    tested = Tried("py3.13-newest", "3.13", DATE, None, missing="no Python 3.13: none")
    VERSIONS.write(tmp_path / "versions.json", Versions(1, ("tests/decode",), (tested,)))
    made = [mutant(KILLED), mutant(SURVIVED, 2), mutant(SURVIVED, 3)]
    MUTATION.write(tmp_path / "mutation.json", Mutation(1, 7, {"stats": 9, "gate": 4}, tuple(made)))
    argument = (
        'file = "stats/x.py"',
        'within = "f"',
        'before = "a < b"',
        'after = "(a <= b)"',
        "nth = 3",
        'why = "so"',
    )
    (tmp_path / "equivalent-mutants.toml").write_text("\n".join(("[[mutant]]", *argument)))
    text = page(tmp_path)
    assert "- py3.13-newest was not tested: no Python 3.13: none" in text
    assert "seed 7; 9 of stats, 4 of gate in all" in text
    assert "| stats | 3 | 1 | 1 | 1 | 50.0 % |" in text
    assert "- Survived: stats/x.py:2 f: a < b" in text.replace("&lt;", "<").replace("\\<", "<")
    assert "- Equivalent: stats/x.py:3" in text


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
    (tmp_path / "fuzz-guided.json").write_text(json.dumps({"session": one | {"edges": [10, 1200], "largest_mib": 3}}))
    text = page(tmp_path)
    assert "4,500 damaged inputs" in text
    assert "| session | 1,500 | 1,200 | 0.25 s | 0 MiB | 0 |" in text
    assert "| **all** | 3,000 | 2,400 | 0.25 s | 0 MiB | 1 |" in text
    assert "| session | 1,500 | 1,200 | 0.25 s | 3 MiB | 10 to 1,200 | 0 |" in text
    assert "- Fault: noise, 7: boom" in text


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
