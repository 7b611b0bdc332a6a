from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.profile.tried import tried
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, ONE, TWO, Scratch


def test_fusions_with_sound_evidence_are_what_was_tried(tmp_path: Path) -> None:
    """By workload, with the interval; what was invalid or off is no evidence of what a fusion can win."""
    scratch = Scratch(tmp_path / "repo")
    scratch.put(
        scratch.evidence(),
        replace(scratch.evidence(fusion=GEGLU), verdict="invalid"),
        scratch.evidence(fusion=f"{ALTUP}+{GEGLU}", effects={ONE: (0.1, 0.1)}),
    )
    found = tried(scratch.baselines, BIG)
    assert {workload: [one.name for one in each] for workload, each in found.items()} == {
        ONE: [f"{ALTUP}+{GEGLU}", ALTUP],
        TWO: [ALTUP],
    }
    assert found[TWO][0].low < 0.05 < found[TWO][0].high
    assert tried(scratch.baselines, "another-class") == {}


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    """No page is made from half of the evidence."""
    scratch = Scratch(tmp_path / "repo")
    path = scratch.put(scratch.evidence())[0]
    path.write_text(path.read_text()[:-50])
    with pytest.raises(MalformedRecordError, match=path.name):
        tried(scratch.baselines, BIG)
