import io
import json
from pathlib import Path

import pytest

from gemma3n_perf.ci.cli import main
from gemma3n_perf.errors import NotMeasuredError, UsageError
from tests.ci.sources import source
from tests.rehearsal import rehearse as rehearsal


def test_every_scenario_comes_out_as_it_should(tmp_path: Path) -> None:
    """Plan, gather, gate and comment by the workflow's own steps, over synthetic evidence of every class."""
    out = io.StringIO()
    code = rehearsal.rehearse([], out, source(tmp_path / "source").root)
    text = out.getvalue()
    assert code == 0, text
    assert "7 of 7 scenarios came out as they should" in text
    for line in (
        "### admitted: ",
        "### refused: loss",
        "### refused: not-measured",
        "### refused: invalid",
        "### nothing to gate",
        "### not-measured: waiting for approval",
        "its job never finished: the runner vanished or none took it",
    ):
        assert line in text


def test_an_unknown_scenario_is_refused() -> None:
    """Before anything is cloned."""
    with pytest.raises(UsageError, match="flying-pig"):
        rehearsal.rehearse(["flying-pig"], io.StringIO())


def test_without_evidence_nothing_is_rehearsed(tmp_path: Path) -> None:
    """It says which classes lack it, and what would bring it."""
    clone = source(tmp_path / "source")
    for path in (clone.root / "baselines").glob("*/fusions/*.json"):
        path.unlink()
    with pytest.raises(NotMeasuredError, match="no fusion has evidence of a win on every required class"):
        rehearsal.rehearse(["docs-only"], io.StringIO(), clone.root)


@pytest.mark.parametrize("plan", ["", "{}", json.dumps({"state": "measure"})])
def test_a_change_that_could_not_be_planned_is_told_so(tmp_path: Path, plan: str) -> None:
    """As with a policy file that has a typo: not measured, with a comment and a summary."""
    comment, summary = tmp_path / "comment.md", tmp_path / "summary.md"
    argv = ["answer", "--plan", plan, "--comment", str(comment), "--summary", str(summary)]
    assert main(argv, io.StringIO(), io.StringIO()) == 4
    assert "### not-measured: the gate could not be prepared" in comment.read_text()
    assert summary.read_text() == comment.read_text()


def test_a_link_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    """It would become part of a comment."""
    comment = tmp_path / "comment.md"
    plan = {
        "state": "nothing", "reason": "no fusion", "remedy": "", "classes": [], "harness": [],
        "pull": {"number": 7, "head": "a" * 40, "base": "b" * 40, "head_repo": "u/s", "base_repo": "u/s", "author": ""},
    }  # fmt: skip
    argv = ["answer", "--plan", json.dumps(plan), "--comment", str(comment)]
    assert main([*argv, "--link", "run=https://example.org/1"], io.StringIO(), io.StringIO()) == 0
    assert "[run](https://example.org/1)" in comment.read_text()
    assert main([*argv, "--link", "run=javascript:alert(1)"], io.StringIO(), io.StringIO()) == 2
    assert "javascript" not in comment.read_text().split("###")[0]
