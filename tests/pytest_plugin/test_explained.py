"""``pytest perf/ --explain``: what would be measured and how long, and nothing measured."""

import re

import pytest

from gemma3n_perf.gate import run as evidence_run
from gemma3n_perf.pytest_plugin import explained, session
from tests.gate.evidence_files import ALTUP, GEGLU, FakeSources
from tests.pytest_plugin.stage import IMAGE, LONG, TEXT, Outcome, Stage


def dry(stage: Stage, *arguments: str) -> Outcome:
    """Run it dry; nothing may be opened, measured, stored or judged."""
    before = stage.local_files
    outcome = stage.run("--explain", *arguments)
    assert outcome.code == 0, outcome.text
    assert "nothing was measured (--explain)" in outcome.text
    assert "passed" not in outcome.out
    assert (stage.script.opened, stage.script.duelled, stage.script.requests) == (0, [], [])
    assert stage.local_files == before
    return outcome


def test_runs_are_told_with_how_long_they_took_before(stage: Stage) -> None:
    """By stored sessions, and where there are none it says so."""
    unknown = dry(stage)
    assert f"no stored session says how long: {TEXT}, {LONG}, {IMAGE}" in unknown.text
    stage.commit()
    known = dry(stage, "--runs", "4", "--budget", "30")
    assert "exact counts, prefills and 4 runs of each, on" in known.text
    for name in (TEXT, LONG, IMAGE):
        assert f"  {name}\n" in known.out
    assert "as stored sessions took, and loading" in known.text
    assert "at most 30 s of measuring (--budget), or 3 runs of each" in known.text
    assert "no stored session" not in known.text


def test_what_is_selected_is_what_is_explained(stage: Stage) -> None:
    """As -k, --modality and --shape leave it."""
    outcome = dry(stage, "--modality", "image")
    assert f"  {IMAGE}\n" in outcome.out
    assert TEXT not in outcome.out
    outcome = dry(stage, "-k", f"decode and {LONG.split('/')[-1]}")
    assert f"  {LONG}\n" in outcome.out
    assert IMAGE not in outcome.out


def test_a_comparison_is_told_with_its_arms_and_its_budget(stage: Stage) -> None:
    """The one that was named; or what could be had, without building it."""
    outcome = dry(stage, "--benchmark-compare", "--against", "ref:v1.0")
    assert "a duel of ref:v1.0 with here, unless both are the same program, on" in outcome.text
    assert "at most 480 s of measuring (3 x 1 x 160 s)" in outcome.text
    assert re.search("a duel of (ref:|installed|nothing)", dry(stage, "--benchmark-compare").text)
    planted = dry(stage, "--benchmark-compare", "--plant-slowdown", "25%")
    assert "this tree without the planted slowdown with here+plant:+25%" in planted.text


def test_evidence_is_told_with_its_sessions(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are on here; the others are counted and not timed. The pause between sessions is the policy's."""
    sources = FakeSources(stage.folder, off={GEGLU: (stage.chip.chip_class,)})
    for module in (session, explained):
        monkeypatch.setattr(module, "registered", lambda: sources)
    monkeypatch.setattr(sources.__class__, "files", lambda self, name: ())
    monkeypatch.setattr(evidence_run, "run", None)
    text = dry(stage, "--fusion", "all").text
    assert f"2 sessions of duels with the unfused model, of {ALTUP} (off here: {GEGLU}), on {TEXT}" in text
    assert "at most 120 s of measuring (1 x 1 x 120 s)" in text
    assert "about 4.5 min" in text
    (stage.folder / "baselines").mkdir(exist_ok=True)
    (stage.folder / "baselines" / "policy.toml").write_text(
        f'[gate]\napart = 600\n[classes.{stage.chip.chip_class}]\nstate = "required"\nworkloads = ["{LONG}"]\n'
    )
    text = dry(stage, "--fusion", ALTUP, "--budget", "60").text
    assert f"on {LONG} at most 60 s of measuring (1 x 1 x 60 s)" in text
    assert "about 12.0 min" in text


def test_a_fault_is_a_named_error(stage: Stage) -> None:
    """As it would be in a session that measures."""
    (stage.folder / "baselines").mkdir(exist_ok=True)
    (stage.folder / "baselines" / "policy.toml").write_text(
        f'[gate]\napart = -1\n[classes.{stage.chip.chip_class}]\nstate = "required"\nworkloads = ["{TEXT}"]\n'
    )
    outcome = stage.run("--explain", "--fusion", "compiled-geglu")
    assert outcome.code == 2
    assert "apart = -1" in outcome.text
    assert "Traceback" not in outcome.text
