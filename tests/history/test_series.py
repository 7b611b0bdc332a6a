import datetime as dt
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history.collecting import collect, commits
from gemma3n_perf.history.results import ResultFile, Value
from gemma3n_perf.history.series import Series, Step, changes, series
from gemma3n_perf.stats.spread import noise_floor
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.history.replay import CPU, GPU, WORKLOADS, recorded, repository, write_history

SEEDS = {CPU: 3, GPU: 1}
"""Of one history each. How often any is found, and where: ``test_detect``."""


def results(tmp_path: Path, chip_class: str = CPU) -> tuple[ResultFile, ...]:
    """Return the results of a history that was written."""
    known = commits(tmp_path / "repo", run_command)
    return collect(tmp_path / "results", [tmp_path / "baselines" / chip_class], known.dates).results


def history(tmp_path: Path, factor: float, chip_class: str, *, at: int = 15) -> tuple[list[str], Series]:
    """Return 30 commits and the one series of a history in which commit ``at`` changes time by ``factor``."""
    hashes = repository(tmp_path / "repo", 30)
    write_history(tmp_path / "baselines", chip_class, hashes, at=at, factor=factor, seed=SEEDS[chip_class])
    line = commits(tmp_path / "repo", run_command).line
    (found,) = series(results(tmp_path, chip_class), line, noise={}, confirmed={})
    return hashes, found


@pytest.mark.parametrize("chip_class", [CPU, GPU])
def test_a_planted_slowdown_is_one_regression_at_its_commit(tmp_path: Path, chip_class: str) -> None:
    """5 % from commit 15 of 30 on, in the recorded noise of either class: exactly one, there."""
    hashes, found = history(tmp_path, 1.05, chip_class)
    assert (found.chip_class, found.workload, len(found.points)) == (chip_class, WORKLOADS[chip_class], 30)
    (one,) = found.steps
    assert (one.before, one.after) == (hashes[14], hashes[15])
    assert one.change.slower
    assert one.standing == "suspected"


@pytest.mark.parametrize("chip_class", [CPU, GPU])
def test_a_planted_speed_up_is_no_regression(tmp_path: Path, chip_class: str) -> None:
    """It is a step the other way."""
    _, found = history(tmp_path, 1 / 1.05, chip_class)
    assert len(found.steps) == 1
    assert not found.steps[0].change.slower


@pytest.mark.parametrize("chip_class", [CPU, GPU])
def test_an_unchanged_history_shows_nothing(tmp_path: Path, chip_class: str) -> None:
    """30 commits of one code."""
    assert history(tmp_path, 1.0, chip_class)[1].steps == ()


def test_order_is_that_of_parents(tmp_path: Path) -> None:
    """Files arrive in any order, and dates may lie."""
    hashes, _ = history(tmp_path, 1.0, CPU)
    files = [replace(one, date=9) for one in results(tmp_path)]
    random.Random(1).shuffle(files)
    (found,) = series(files, hashes, noise={}, confirmed={})
    assert list(found.points) == hashes


def test_commits_that_are_not_in_the_line_are_left_out(tmp_path: Path) -> None:
    """As after a rebase."""
    hashes, _ = history(tmp_path, 1.0, CPU)
    (found,) = series(results(tmp_path), hashes[5:], noise={}, confirmed={})
    assert list(found.points) == hashes[5:]


def test_the_noise_floor_of_the_class_hides_what_it_could_have_made(tmp_path: Path) -> None:
    """A step of 5 % on a class whose A/A duels are off by 8 %."""
    hashes, _ = history(tmp_path, 1.05, CPU)
    floor = noise_floor([[0.04, 0.05], [-0.04, -0.05], [0.05, 0.04]], dt.date(2026, 7, 1))
    assert floor.effect > 0.05
    files = results(tmp_path)
    assert series(files, hashes, noise={CPU: floor}, confirmed={})[0].steps == ()


def anchored(hashes: list[str], factor: float, at: int, seed: int) -> dict[str, tuple[None, Value]]:
    """Return points of duels with an anchor, 12 launches each of this class's scatter, slower from one commit on."""
    rng = random.Random(seed)
    made: dict[str, tuple[None, Value]] = {}
    for place, commit in enumerate(hashes):
        ratios = [rng.gauss(0.0, 0.0108) for _ in range(12)]
        tpot_s = 0.02 * (factor if place >= at else 1.0)
        made[commit] = None, Value(tpot_s * math.exp(sum(ratios) / 12), tuple(tpot_s * math.exp(one) for one in ratios))
    return made


def test_duels_against_an_anchor_show_what_absolute_times_cannot(tmp_path: Path) -> None:
    """3 % at its commit in 40 of 40 histories of 24 commits, and no step where nothing changed; whatever files say."""
    hashes = repository(tmp_path / "repo", 30)
    write_history(tmp_path / "baselines", CPU, hashes, at=15, factor=1.0, seed=1)
    files, where = results(tmp_path), (CPU, WORKLOADS[CPU])
    floor = {CPU: noise_floor([[0.010, -0.011], [0.011, -0.010], [-0.011, 0.010]], dt.date(2026, 7, 1))}
    for seed in range(40):
        for factor, expected in ((1.03, [hashes[15]]), (1.0, [])):
            own = {where: anchored(hashes[:24], factor, 15, seed)}
            (found,) = series(files, hashes, noise=floor, confirmed={}, anchored=own)
            assert [step.after for step in found.steps] == expected


def test_absolute_times_of_a_cpu_miss_a_step_of_a_tenth_more_often_than_not() -> None:
    """One recorded session a commit: this is why they are context. Those of one quiet quarter of an hour are alike."""
    measured = [one.session_tpot_s for one in recorded(CPU).sessions_of(WORKLOADS[CPU])]
    rng, found = random.Random(1), 0
    for _ in range(100):
        values = [rng.choice(measured) * (1.1 if place >= 12 else 1.0) for place in range(24)]
        found += len(changes(values, floor=0.005)) == 1
    assert found < 50


@pytest.mark.parametrize(
    ("verdict", "standing"),
    [("loss", "confirmed"), ("no-change", "refuted"), ("win", "refuted"), ("inconclusive", "open"),
     ("not-measured", "open")],
)  # fmt: skip
def test_a_duel_decides_where_a_step_stands(tmp_path: Path, verdict: str, standing: str) -> None:
    """Only a duel that found a loss confirms a regression."""
    hashes, found = history(tmp_path, 1.05, CPU)
    (step,) = found.steps
    said = Judgement(Verdict(verdict), "so it is", -0.05, -0.06, -0.04), "2026-07-01"
    files = results(tmp_path)
    key = (CPU, found.workload, step.before, step.after)
    assert series(files, hashes, noise={}, confirmed={key: said})[0].steps[0].standing == standing


def test_a_speed_up_is_confirmed_by_a_win(tmp_path: Path) -> None:
    """And by nothing else."""
    _, found = history(tmp_path, 1 / 1.05, CPU)
    (step,) = found.steps
    said = Judgement(Verdict.WIN, "so it is", 0.05, 0.04, 0.06)
    assert Step(step.change, step.before, step.after, said, "2026-07-01").standing == "confirmed"
