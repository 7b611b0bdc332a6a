import random
from statistics import median

import pytest

from gemma3n_perf.history.series import changes, scatter
from tests.history.replay import CPU, GPU, noise

FLOOR = 0.005


def level(seed: int, commits: int, sd: float, factor: float = 1.0) -> list[float]:
    """Return seconds per token of normal noise, ``factor`` times as long from the middle on."""
    rng = random.Random(seed)
    return [0.02 * rng.lognormvariate(0, sd) * (factor if place >= commits // 2 else 1) for place in range(commits)]


def test_a_slowdown_is_one_step_at_its_commit() -> None:
    """5 % in 30 commits at 1 % scatter, and its size is told."""
    (found,) = changes(level(1, 30, 0.01, 1.05), floor=FLOOR)
    assert found.after == 15
    assert found.slower
    assert found.effect == pytest.approx(1 / 1.05 - 1, abs=0.01)
    assert found.before_s < found.after_s


def test_a_speed_up_is_a_step_and_no_regression() -> None:
    """Time went down, so throughput went up."""
    (found,) = changes(level(2, 30, 0.01, 1 / 1.05), floor=FLOOR)
    assert not found.slower
    assert found.effect > 0.03


@pytest.mark.parametrize(("commits", "sd"), [(30, 0.005), (30, 0.03), (200, 0.01)])
def test_identical_code_shows_no_step(commits: int, sd: float) -> None:
    """In 50 histories of normal noise, at most one."""
    assert sum(bool(changes(level(seed, commits, sd), floor=FLOOR)) for seed in range(50)) <= 1


@pytest.mark.parametrize("chip_class", [CPU, GPU])
def test_recorded_noise_shows_no_step(chip_class: str) -> None:
    """In 40 histories of a class's own recorded noise, with its tails, at most one."""
    histories = []
    for seed in range(40):
        rng = random.Random(seed)
        histories.append([0.02 * median(noise(chip_class, rng)) for _ in range(30)])
    assert sum(bool(changes(one, floor=FLOOR)) for one in histories) <= 1


@pytest.mark.parametrize(("chip_class", "found", "near"), [(CPU, 0.95, 0.9), (GPU, 0.8, 0.65)])
def test_how_often_a_slowdown_is_found_in_recorded_noise(chip_class: str, found: float, near: float) -> None:
    """5 % in 40 histories: nearly always on the CPU's ratios, mostly on a GPU's sessions; never as a speed-up."""
    hits = close = 0
    for seed in range(40):
        rng = random.Random(seed)
        listed = [0.02 * (1.05 if place >= 15 else 1.0) * median(noise(chip_class, rng)) for place in range(30)]
        slower = [step for step in changes(listed, floor=FLOOR) if step.slower]
        assert len(slower) == len(changes(listed, floor=FLOOR))
        hits += len(slower) == 1
        close += len(slower) == 1 and abs(slower[0].after - 15) <= 1
    assert hits >= 40 * found
    assert close >= 40 * near


def test_the_noise_floor_is_respected() -> None:
    """A clear step of 2 % is none on a class whose sessions differ by 3 %."""
    history = level(3, 60, 0.002, 1.02)
    assert len(changes(history, floor=FLOOR)) == 1
    assert changes(history, floor=0.03) == ()


def test_a_series_quieter_than_its_class_is_not_believed() -> None:
    """What calibration says of launches is the least scatter that is assumed."""
    history = level(4, 16, 0.0005, 1.01)
    assert changes(history, floor=FLOOR)
    assert changes(history, floor=FLOOR, least_scatter=0.02) == ()


def test_too_few_points_say_nothing() -> None:
    """Nor does a constant series have a step."""
    assert changes([0.01, 0.02, 0.02], floor=FLOOR) == ()
    assert changes([0.01] * 30, floor=FLOOR) == ()


def test_scatter_hardly_sees_a_step_and_sees_tails() -> None:
    """A 5 % step among 30 points adds little; one wild point in five adds much."""
    quiet = level(5, 30, 0.01)
    assert scatter(level(5, 30, 0.01, 1.05)) == pytest.approx(scatter(quiet), rel=0.25)
    assert scatter([0.02, 0.02, 0.02, 0.02, 0.03] * 6) > 0.05
    assert scatter([0.02]) == 0.0
