"""A smaller form of the table: what the judge promises, kept on fewer duels with fixed seeds."""

import io
import json
from dataclasses import replace

import pytest

from studies import operating_characteristics as study
from studies.simulation import Scenario, simulate

DUELS = 2000


@pytest.mark.parametrize("of", [study.CPU_NOISY, study.CPU], ids=lambda of: of.name)
def test_the_gate_admits_what_is_faster_and_nothing_else(of: study.Class) -> None:
    """A true 2 % in two sessions nineteen times in twenty, 0.5 % and nothing hardly ever."""
    assert study.admitted(of, 0.02, 60, 1)[0] >= 0.95
    assert study.admitted(of, 0.005, 100, 1)[0] <= 0.02
    assert study.admitted(of, 0.0, 100, 1)[0] == 0


@pytest.mark.parametrize("truth", [0.01, -0.01])
@pytest.mark.parametrize("calibration", ["none", "right"])
def test_a_change_of_the_margin_is_called_none_once_in_a_hundred(truth: float, calibration: str) -> None:
    """Of Gaussian launches; 2,000 duels of a rate of 1 % show up to 1.5 %."""
    assert simulate(Scenario(truth, budget_s=180.0, calibration=calibration), DUELS, 2).no_change <= 0.015


@pytest.mark.parametrize("calibration", ["none", "right", "half"])
def test_the_smallest_effect_that_counts_is_called_a_win_once_in_a_hundred(calibration: str) -> None:
    """Exactly at the threshold; a calibration of half the truth costs a little more."""
    assert simulate(Scenario(0.005, 0.012, calibration=calibration), DUELS, 3).win <= 0.02


def test_a_random_walk_is_rarely_called_a_change() -> None:
    """A third were before launches that resemble each other were judged as a walk."""
    walked = simulate(Scenario(launch_sd=0.006, noise="walk", budget_s=180.0, within=0.0), DUELS, 4)
    assert walked.win + walked.loss < 0.12


def test_three_unchanged_workloads_settle_nearly_as_soon_as_one() -> None:
    """No-change of each has an error of its own; the last of three needs some launches more."""
    one, three = (study.unchanged(0.007, 20, workloads, DUELS, 5) for workloads in (1, 3))
    assert one[0] > 0.95
    assert three[0] > 0.85
    assert three[1] < 1.5 * one[1]


def test_a_floor_is_rarely_found_where_there_is_none() -> None:
    """Six duels of sessions that do not differ."""
    assert study.floors(0.012, 400, 6) <= 0.06


def test_the_table_is_printed_as_text_and_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number with what is asked of it, and whether that is kept."""
    found = [study.Line("a", 0.5, "share", least=0.9), study.Line("b", 12.0, "s"), study.Line("c", 1.0, "s", most=2.0)]
    monkeypatch.setattr(study, "lines", lambda duels: iter(found))
    text, tree = io.StringIO(), io.StringIO()
    assert study.main([], text) == study.main(["--json"], tree) == 0
    kept = {one["what"]: one["kept"] for one in json.loads(tree.getvalue())}
    assert kept == {"a": False, "b": True, "c": True}
    first, second, third = text.getvalue().splitlines()
    assert first.endswith("50.00 %  asked >= 90 %  NOT KEPT")
    assert second.endswith("12.0 s")
    assert third.endswith("1.0 s  asked <= 2 s")


def test_a_budget_is_found_by_its_power() -> None:
    """The fewest launches that show 2 % nineteen times in twenty: more where launches scatter more."""
    few, _ = study.budget_for(replace(study.CPU, launch_sd=0.006), 0.02, 500, 7)
    many, found = study.budget_for(study.CPU, 0.02, 500, 7)
    assert few < many
    assert found.right(0.02) >= study.POWER
