"""Every record with numbers, in the formats of two dashboards, checked against what they say they read."""

import datetime as dt
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.duel import record as duels
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.history.exporting import FORMATS, read
from gemma3n_perf.stats.verdicts import not_measured
from tests.duel.arena import Arena, noisy
from tests.duel.duels import NOW, asked, machine
from tests.gate.evidence_files import Scratch

BASELINES = Path(__file__).resolve().parents[2] / "baselines"
CLASS = "cpu-amd-epyc-f25m17s1-2c"
BENCHER, GITHUB = FORMATS
WORKLOAD = "nano/text/pp40-tg64"


def run(*argv: str | Path) -> tuple[int, str, str]:
    """Run the command."""
    out, err = io.StringIO(), io.StringIO()
    return program.run(("export", *map(str, argv)), out, err), out.getvalue(), err.getvalue()


def is_bencher(tree: Any) -> bool:
    """Whether Bencher's schema takes it: names of benchmarks, then of measures, then up to three numbers."""
    values = {"value", "lower_value", "upper_value"}
    return bool(tree) and all(
        "value" in metric and metric.keys() <= values and all(isinstance(one, float) for one in metric.values())
        for measures in tree.values()
        for metric in measures.values()
    )


def is_github(tree: Any) -> bool:
    """Whether github-action-benchmark's custom tools take it."""
    kinds = {"name": str, "unit": str, "value": float, "range": str, "extra": str}
    return bool(tree) and all(
        one.keys() == kinds.keys() and all(isinstance(one[name], kind) for name, kind in kinds.items()) for one in tree
    )


def sessions() -> list[Path]:
    """Return stored sessions of two commits."""
    return sorted((BASELINES / CLASS).glob("00??_*.json"))[-7:]


def test_a_stored_session_is_throughput() -> None:
    """With its lowest and highest run."""
    code, text, _ = run(sessions()[-1])
    tree = json.loads(text)
    assert (code, is_bencher(tree)) == (0, True)
    found = tree[WORKLOAD]["throughput"]
    assert found["lower_value"] <= found["value"] <= found["upper_value"]
    code, text, _ = run(sessions()[-1], "--format", GITHUB)
    tree = json.loads(text)
    assert (code, is_github(tree)) == (0, True)
    assert tree[0]["name"] == f"{WORKLOAD} throughput ({CLASS})"
    assert tree[0]["value"] == found["value"]


def test_several_are_a_series() -> None:
    """Oldest first, whatever their order, each with its commit and day, as both tools take history."""
    files = sessions()
    code, text, _ = run(*reversed(files))
    tree = json.loads(text)
    assert code == 0
    assert [one["hash"] for one in tree] == [read(path).commit for path in files]
    assert len({one["hash"] for one in tree}) > 1
    assert all(is_bencher(one["results"]) and one["testbed"] == CLASS for one in tree)
    tree = json.loads(run(*files, "--format", GITHUB)[1])
    assert [one["date"] for one in tree] == sorted(one["date"] for one in tree)
    assert all(is_github(one["benches"]) and one["tool"] == "customBiggerIsBetter" for one in tree)
    day = dt.datetime.fromtimestamp(tree[0]["date"] / 1000, dt.UTC)
    assert day.isoformat()[:19] == read(files[0]).date[:19]


def test_evidence_is_the_effect_of_a_fusion(tmp_path: Path) -> None:
    """In percent, with the interval that was judged."""
    made = Scratch(tmp_path / "scratch").evidence()
    path = evidence.write(tmp_path, made)
    tree = json.loads(run(path)[1])
    assert is_bencher(tree)
    for one in made.workloads:
        found = tree[f"{one.workload} stacked-altup"]["change"]
        assert found["value"] == pytest.approx(100 * (one.judgement.effect or 0.0))
        assert found["lower_value"] < found["value"] < found["upper_value"]


def test_what_was_not_measured_is_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is left out and said; where nothing is left, exit 4."""
    made = Scratch(tmp_path / "scratch").evidence()
    one, other = made.workloads
    half = replace(made, workloads=(one, replace(other, judgement=not_measured("it was hot"))))
    code, text, _ = run(evidence.write(tmp_path / "half", half))
    assert (code, list(json.loads(text))) == (0, [f"{one.workload} stacked-altup"])
    assert f"left out: {other.workload} stacked-altup: not-measured: it was hot" in capsys.readouterr().err
    none = replace(made, workloads=(replace(other, judgement=not_measured("it was hot")),))
    code, text, err = run(evidence.write(tmp_path / "none", none))
    assert (code, text) == (4, "")
    assert "it was hot" in err


def test_a_duel_is_exported_and_a_planted_one_refused(tmp_path: Path) -> None:
    """A planted slowdown says nothing of the code."""
    here = machine(Arena(noisy()), tmp_path)
    record = dueling.record_of(dueling.duel(asked(candidate="here+plant:+5%"), here, NOW), here.chip)
    duels.DUELS.write(tmp_path / "planted.json", record)
    code, _, err = run(tmp_path / "planted.json")
    assert (code, "planted" in err) == (2, True)
    honest = replace(record, planted=dict.fromkeys(record.planted, 0.0))
    path = duels.DUELS.write(tmp_path / "duel.json", honest)
    code, text, _ = run(path, "--json", tmp_path / "out.json")
    assert (code, text) == (0, f"{tmp_path / 'out.json'}\n")
    tree = json.loads((tmp_path / "out.json").read_text())
    assert is_bencher(tree)
    assert tree[WORKLOAD]["change"]["value"] == pytest.approx(100 * (record.effect or 0.0))


@pytest.mark.parametrize("content", ["{}", "[]", "3", '{"a": 1}'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    """Naming what is expected."""
    (tmp_path / "x.json").write_text(content)
    code, _, err = run(tmp_path / "x.json")
    assert (code, "holds no session, duel or evidence" in err) == (2, True)
    assert run(tmp_path / "none.json")[0] == 2
    (tmp_path / "x.json").write_text("{")
    assert run(tmp_path / "x.json")[0] == 5
