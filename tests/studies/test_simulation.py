"""The promises of docs/method.md, checked on fewer duels with fixed seeds."""

import io
import math
from dataclasses import replace

import numpy as np
import pytest

from gemma3n_perf.stats.detectable import LAST_LOOK_SHARE, Sensitivity
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge, should_stop
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Verdict
from studies.simulation import NOISES, Scenario, launch_noise, main, replay, simulate, study

DUELS = 2000
BASE = Scenario()


@pytest.mark.parametrize(
    ("noise", "launch_sd"),
    [(noise, sd) for noise in NOISES if noise != "walk" for sd in (0.003, 0.007, 0.009)]
    + [(noise, 0.015) for noise in ("gaussian", "t3", "contaminated")],
)
def test_identical_arms_are_called_changed_at_most_once_in_a_hundred(noise: str, launch_sd: float) -> None:
    """A/A is called win or loss at most 1 % of the time, on independent and dependent launches alike."""
    out = simulate(replace(BASE, noise=noise, launch_sd=launch_sd), DUELS, 11)
    assert out.win + out.loss <= 0.01


@pytest.mark.parametrize("launch_sd", [0.005, 0.009])
@pytest.mark.parametrize("effect", [0.02, -0.02])
def test_two_percent_is_called_within_a_minute(effect: float, launch_sd: float) -> None:
    """A true 2 % either way is called rightly at least 95 % of the time, and never the wrong way."""
    out = simulate(replace(BASE, effect=effect, launch_sd=launch_sd), DUELS, 12)
    assert out.right(effect) >= 0.95
    assert out.wrong(effect) == 0


@pytest.mark.parametrize("effect", [0.01, -0.01])
def test_one_percent_is_called_within_three_minutes(effect: float) -> None:
    """A true 1 % is called rightly at least 65 % of the time in 180 s at a launch spread of 0.9 %."""
    out = simulate(replace(BASE, effect=effect, launch_sd=0.009, budget_s=180), DUELS, 13)
    assert out.right(effect) >= 0.65
    assert out.wrong(effect) == 0


@pytest.mark.parametrize("budget_s", [60, 180])
def test_ten_percent_stops_early(budget_s: float) -> None:
    """A true 10 % is called after four launches nineteen times in twenty, five of a long budget."""
    out = simulate(replace(BASE, effect=-0.1, budget_s=budget_s), DUELS, 14)
    assert out.right(-0.1) >= 0.999
    assert out.p95_s <= (20 if budget_s == 60 else 25)


@pytest.mark.parametrize("calibration", ["none", "right", "half", "double"])
@pytest.mark.parametrize(("effect", "budget_s"), [(0.0, 60), (0.02, 60), (-0.01, 180), (0.1, 60)])
def test_reported_interval_covers(effect: float, budget_s: float, calibration: str) -> None:
    """Stopping when something is shown does not spoil the reported interval, whatever the calibration."""
    out = simulate(replace(BASE, effect=effect, budget_s=budget_s, calibration=calibration), 2 * DUELS, 15)
    assert 0.925 <= out.coverage <= 0.975


def test_a_calibration_that_is_wrong_stays_honest() -> None:
    """A stored spread of half the truth, on the noisiest machine, still calls A/A changed at most 1 %."""
    out = simulate(replace(BASE, launch_sd=0.015, calibration="half"), DUELS, 16)
    assert out.win + out.loss <= 0.01


def test_detectable_effect_is_detected_under_optional_stopping() -> None:
    """The effect that twelve launches are said to show with 80 % chance is called so in 78 to 86 % of duels."""
    effect = Sensitivity(0.007, LAST_LOOK_SHARE * 0.02).effect(12, threshold=math.log1p(0.005))
    out = simulate(replace(BASE, effect=math.expm1(effect), within=0.0), 2 * DUELS, 20)
    assert 0.78 <= out.win <= 0.86


def test_noise_floor_restrains_sessions_that_differ() -> None:
    """Where whole sessions differ by 0.5 %, the calibrated floor cuts the false claims several times."""
    bare = simulate(replace(BASE, session_sd=0.005), DUELS, 17)
    restrained = simulate(replace(BASE, session_sd=0.005, calibration="right", floor=0.01), DUELS, 17)
    assert bare.win + bare.loss > 0.03
    assert restrained.win + restrained.loss < 0.02


@pytest.mark.parametrize("effect", [0.0, 0.008, 0.02])
@pytest.mark.parametrize(("calibration", "shares"), [("none", 1), ("right", 1), ("half", 1), ("right", 3)])
def test_the_study_judges_as_the_judge_does(effect: float, calibration: str, shares: int) -> None:
    """The study's vectorised duels stop at the same launch, with the same verdict and interval, as judge()."""
    rng, policy = np.random.default_rng(18), Policy(shares=shares)
    scenario = replace(BASE, effect=effect, calibration=calibration)
    values = math.log1p(effect) + 0.007 * launch_noise("gaussian", (40, 12), rng)
    blocks = np.full((40, 12), 0.004**2)
    verdict, stopped, low, high = replay(values, blocks, scenario, policy)
    code = {Verdict.WIN: 1.0, Verdict.LOSS: -1.0, Verdict.NO_CHANGE: 0.0}
    for i in range(40):
        duel = [LaunchEstimate(float(v), 5.0, se=0.004) for v in values[i]]
        for n in range(1, 13):
            found = judge(duel[:n], policy, budget_s=60, noise=scenario.prior(), budget_spent=n == 12)
            if should_stop(found):
                break
        assert n == stopped[i]
        assert code.get(found.verdict, math.nan) == pytest.approx(verdict[i], nan_ok=True)
        assert found.low == pytest.approx(math.expm1(low[i]))
        assert found.high == pytest.approx(math.expm1(high[i]))


@pytest.mark.parametrize("noise", [n for n in NOISES if n not in ("drift", "walk")])
def test_noises_have_the_spread_they_claim(noise: str) -> None:
    """Every shape of noise has unit variance and mean zero, so that scenarios differ in shape only."""
    x = launch_noise(noise, (40_000, 6), np.random.default_rng(19))
    assert float(x.mean()) == pytest.approx(0, abs=0.01)
    assert float(x.var()) == pytest.approx(1, rel=0.15 if noise == "t3" else 0.03)


def test_unknown_noise_is_refused() -> None:
    """A misspelt shape is an error, not Gaussian."""
    with pytest.raises(ValueError, match="none of"):
        launch_noise("gausian", (1, 1), np.random.default_rng(0))


def test_command_prints_the_same_table_twice() -> None:
    """The documented command is repeatable and prints one row per scenario."""
    tables = []
    for _ in range(2):
        out = io.StringIO()
        assert main(["--duels", "20"], out) == 0
        tables.append(out.getvalue())
    assert tables[0] == tables[1]
    assert tables[0].count("\n") == len(list(study())) + 2
