import io
import json
import re
from pathlib import Path

import pytest

from gemma3n_perf.ci.cli import main
from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.change import FUSIONS
from tests.rehearsal import farm
from tests.rehearsal import rehearse as rehearsal
from tests.rehearsal.github import Clone, Comments

ROOT = Path(__file__).resolve().parents[2]


def source(folder: Path) -> Clone:
    """Return a clone of this checkout without evidence, so that its state does not change what the tests see."""
    clone = Clone.of(ROOT, folder)
    for path in (folder / "baselines").glob("*/fusions/*.json"):
        path.unlink()
    clone.save("no evidence")
    return clone


@pytest.mark.slow
def test_every_scenario_comes_out_as_it_should(tmp_path: Path) -> None:
    """Plan, gather, gate and comment by the workflow's own steps, over synthetic evidence of every class."""
    out = io.StringIO()
    code = rehearsal.rehearse([], out, source(tmp_path / "source").root)
    text = out.getvalue()
    assert code == 0, text
    assert f"{len(rehearsal.SCENARIOS)} of {len(rehearsal.SCENARIOS)} scenarios came out as they should" in text
    for line in (
        "### admitted: ",
        "### refused: loss",
        "### refused: not-measured",
        "### refused: invalid",
        "### nothing to gate",
        "### not-measured: waiting for approval",
        "its job never finished: the runner vanished or none took it",
        "### refused: loss (mlx 0.32.0 ",
        "### no regression: ",
        "**loss**, accepted |",
        "a fix that is needed",
        "classes disagree: a win on ",
        "mlx 0.32.0 was withdrawn",
        "the environment of the change could not be set up",
        "nothing to gate",
        "nightly would queue: apple-m1-ultra-64gpu\n",
        "apple-m1-ultra-64gpu has a baseline of 5 sessions",
        "site: apple-m1-ultra-64gpu is on ",
    ):
        assert line in text


@pytest.mark.slow
def test_another_farms_policy_is_rehearsed_as_well(tmp_path: Path) -> None:
    """No scenario counts on the classes of this repository; what takes two is said to be left out."""
    out = io.StringIO()
    fork = farm.founded(source(tmp_path / "source").root, tmp_path, "http://localhost", out)
    assert rehearsal.rehearse(["missing-class", "lock-slower", "classes-disagree"], out, fork.root) == 0, out.getvalue()
    assert "classes-disagree is left out" in out.getvalue()
    assert "2 of 2 scenarios came out as they should" in out.getvalue()


@pytest.mark.parametrize(
    "planted",
    [
        "import atexit, pathlib\natexit.register(lambda: pathlib.Path({ran!r}).write_text('### admitted @everyone'))\n",
        *(
            pytest.param(text, marks=pytest.mark.slow)
            for text in (
                "import os, pathlib\npathlib.Path({ran!r}).touch()\nos._exit(0)\n",
                "import pathlib, sys\npathlib.Path({ran!r}).touch()\nsys.exit(0)\n",
            )
        ),
    ],
)
def test_what_answers_and_comments_never_imports_the_change(tmp_path: Path, planted: str) -> None:
    """Plan, stage, answer and comment: an exit hook could write "admitted", and ``os._exit(0)`` makes a green check."""
    ran = tmp_path / "ran"
    clone = source(tmp_path / "source")
    with rehearsal._stage(clone.root) as stage, Comments().served() as api:
        stage.clone.git("checkout", "--quiet", "--detach", stage.head)
        module = stage.clone.root / FUSIONS / f"{stage.fusion.replace('-', '_')}.py"
        module.write_text(module.read_text() + "\n" + planted.format(ran=str(ran)))
        stage.head = stage.clone.save("and it does more")
        code, comment = rehearsal.play(rehearsal.Scenario("planted", "refused", 4), stage, api)
    assert code == 4
    assert comment.splitlines()[1] == f"### refused: not-measured ({stage.fusion})"
    assert not ran.exists()


def test_an_unknown_scenario_is_refused() -> None:
    """Before anything is cloned."""
    with pytest.raises(UsageError, match="flying-pig"):
        rehearsal.rehearse(["flying-pig"], io.StringIO())


@pytest.mark.slow
def test_this_checkout_is_rehearsed_as_it_lies_there() -> None:
    """Whatever evidence it holds, stale or none: what a class lacks is planted, and said so."""
    out = io.StringIO()
    assert rehearsal.rehearse(["admitted", "loss", "wrong-output"], out) == 0, out.getvalue()
    assert re.match(r"fusion [a-z-]+; (evidence as committed of|planted: synthetic evidence of) ", out.getvalue())


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
