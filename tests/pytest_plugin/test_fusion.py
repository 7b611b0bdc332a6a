"""``pytest perf/ --fusion``: what is collected, printed and returned; what is measured is told."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest

from gemma3n_perf.gate import run as evidence_run
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.pytest_plugin import session
from tests.gate.evidence_files import ALTUP, BIG, GEGLU, FakeSources, Scratch
from tests.pytest_plugin.stage import Stage


@pytest.fixture
def recorded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[tuple[str, ...]]]:
    """Return a function that says what the session's records are; it returns what was asked of the session."""
    scratch = Scratch(tmp_path_factory.mktemp("scratch") / "repo")
    monkeypatch.setattr(session, "registered", lambda: FakeSources(scratch.root))

    def tell(**changes: object) -> list[tuple[str, ...]]:
        requests: list[tuple[str, ...]] = []

        def run(names: tuple[str, ...], *rest: object, **options: object) -> tuple[tuple[Evidence, Path], ...]:
            requests.append(names)
            records = [scratch.evidence(BIG, name) for name in names]
            return tuple((replace(one, **changes), Path(f"{one.fusion}.json")) for one in records)  # type: ignore[arg-type]

        monkeypatch.setattr(evidence_run, "run", run)
        return requests

    return tell


def test_fusions_are_not_collected_without_the_option(stage: Stage) -> None:
    """Evidence takes long, and is asked for by name."""
    outcome = stage.run("--collect-only", "-q")
    assert "bench_fusions" not in outcome.text
    assert "test_decode" in outcome.text


def test_one_test_for_each_fusion_and_nothing_else(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]]
) -> None:
    """All are measured in one session; compositions are fusions too."""
    requests = recorded()
    outcome = stage.run("--fusion", "all", "--fusion", f"{ALTUP}+{GEGLU}", "-v")
    assert outcome.code == 0, outcome.text
    assert requests == [(ALTUP, GEGLU, f"{ALTUP}+{GEGLU}")]
    assert "3 passed" in outcome.out
    assert stage.script.opened == 0
    assert f"{ALTUP} on {BIG}: win: as measured" in outcome.text
    assert f"{ALTUP}+{GEGLU}.json" in outcome.text


@pytest.mark.parametrize(("verdict", "code"), [("invalid", 5), ("loss", 1), ("not-measured", 4), ("inconclusive", 3)])
def test_the_exit_code_is_the_records(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]], verdict: str, code: int
) -> None:
    """And its reason is printed without a traceback."""
    recorded(verdict=verdict, reason="for a reason")
    outcome = stage.run("--fusion", ALTUP)
    assert outcome.code == code
    assert f"{ALTUP} on {BIG}: {verdict}: for a reason" in outcome.text
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize(("verdict", "counted"), [("inconclusive", "1 inconclusive"), ("no-change", "1 no-change")])
def test_the_last_line_names_what_is_no_win(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]], verdict: str, counted: str
) -> None:
    """Neither passed nor failed says what became of it."""
    recorded(verdict=verdict, reason="for a reason")
    last = stage.run("--fusion", ALTUP).out.splitlines()[-1]
    assert counted in last
    assert "passed" not in last


def test_what_to_do_next_and_which_interval_decides_is_said(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]]
) -> None:
    """Once, below all evidence; the spread between sessions is the policy's."""
    recorded(verdict="inconclusive", reason="for a reason")
    text = stage.run("--fusion", ALTUP, "--fusion", GEGLU).text
    assert len(re.findall(r"next: measure longer: --budget \d+; the record is kept", text)) == 2
    assert text.count("intervals shown are of 95 %, those that decide of 98 % over all looks") == 1
    assert "taken to lie 0.1 % apart (session_sd of the policy), assumed until A/A duels of three days" in text


def test_progress_reaches_a_terminal_past_the_capture(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On lines of its own, and what was left is wiped before pytest goes on."""
    recorded()
    run = evidence_run.run

    def measured(names: tuple[str, ...], baselines: Path, err: TextIO, **options: object) -> object:
        err.write("\r    \r")
        err.write("\rlaunch 1, measuring")
        return run(names, baselines, err, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(evidence_run, "run", measured)
    outcome = stage.run("--fusion", ALTUP)
    assert outcome.code == 0
    # What reads the session takes a carriage return for the end of a line.
    assert outcome.err.splitlines() == ["", "launch 1, measuring", " " * len("launch 1, measuring")]
    assert "perf/bench_fusions.py \n" in outcome.out


def test_off_passes(stage: Stage, recorded: Callable[..., list[tuple[str, ...]]]) -> None:
    """A proof that the fusion is off here is what was asked for."""
    recorded(verdict="not-measured", enabled=False, reason="off")
    assert stage.run("--fusion", ALTUP).code == 0


def test_evidence_of_changes_says_that_it_will_not_count(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]]
) -> None:
    """Before it is committed."""
    recorded(dirty=True)
    assert "the gate will refuse it" in stage.run("--fusion", ALTUP).text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fusion", "no-such"), "there is no fusion 'no-such'"),
        (("--fusion", ALTUP, "--benchmark-compare"), "--fusion measures a fusion against the unfused model"),
        (("--fusion", ALTUP, "--plant-slowdown", "5%"), "--fusion measures a fusion against the unfused model"),
    ],
)
def test_what_cannot_be_asked_exits_2(
    stage: Stage, recorded: Callable[..., list[tuple[str, ...]]], arguments: tuple[str, ...], said: str
) -> None:
    """Before anything is measured."""
    requests = recorded()
    outcome = stage.run(*arguments)
    assert outcome.code == 2
    assert said in outcome.text
    assert requests == []
