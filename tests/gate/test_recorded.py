from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.gate.admission import recorded
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import admitted
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, NANO, SMALL, Scratch, edited, launches, workload


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return evidence of a win on two classes, one admitted, and of a fusion that does nothing on one."""
    made = Scratch(tmp_path / "repo")
    made.put(
        made.evidence(BIG), made.evidence(SMALL), made.evidence(BIG, GEGLU, {"e2b-4bit/text/pp320-tg64": (0.0, 0.0)})
    )
    admitted.write(made.baselines, BIG, (ALTUP,))
    return made


def test_all_evidence_is_judged_without_git_or_the_day(scratch: Scratch) -> None:
    """A page made of it changes with the records alone: sources that moved on have no say."""
    scratch.write("perf/gemma3n_perf/fusions/stacked_altup.py", "# other")
    found = recorded(scratch.baselines)
    verdicts = {(one.fusion, one.chip_class): one.verdict for one in found.ruling.cells if one.effect is not None}
    assert verdicts[ALTUP, BIG] is verdicts[ALTUP, SMALL] is Verdict.WIN
    assert verdicts[GEGLU, BIG] is Verdict.NO_CHANGE
    assert found.admitted == {BIG: (ALTUP,), SMALL: ()}
    assert {path.name for path in found.evidence} == {f"{ALTUP}.json", f"{GEGLU}.json"}


def test_what_is_unsound_is_raised_or_left_out(scratch: Scratch) -> None:
    """A page must not be made of what was edited; a site goes on without it, and says so."""
    path = scratch.baselines / BIG / "fusions" / f"{GEGLU}.json"
    edited(path, lambda tree: tree.update(date="2026-06-29T10:00:00+00:00"))
    with pytest.raises(InvalidError, match=GEGLU):
        recorded(scratch.baselines)
    faults: list[str] = []
    found = recorded(scratch.baselines, faults)
    assert [str(path) in one for one in faults] == [True]
    assert {one.fusion for one in found.evidence.values()} == {ALTUP}


def test_without_a_policy_nothing_is_judged(scratch: Scratch) -> None:
    """The evidence is still there to be shown."""
    (scratch.baselines / "policy.toml").unlink()
    with pytest.raises(UsageError, match=r"policy\.toml"):
        recorded(scratch.baselines)
    faults: list[str] = []
    found = recorded(scratch.baselines, faults)
    assert len(faults) == 1
    assert len(found.evidence) == 3
    assert found.ruling.cells == ()


def test_blocks_that_whole_runs_contradict_are_invalid(scratch: Scratch) -> None:
    """Whatever the record says of itself: the gate holds blocks against the whole runs beside them."""
    raw = tuple(replace(one, whole_s=(0.02, 0.02 * (1 + 0.001 * n))) for n, one in enumerate(launches((0.05, 0.05))))
    one = replace(scratch.evidence(SMALL), workloads=(workload(NANO, raw=raw),))
    scratch.put(one)
    cells = recorded(scratch.baselines).ruling.cells
    (cell,) = [cell for cell in cells if (cell.fusion, cell.chip_class) == (ALTUP, SMALL)]
    assert cell.verdict is Verdict.INVALID
    assert "whole runs" in cell.reason
