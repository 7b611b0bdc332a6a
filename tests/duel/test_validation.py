import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gemma3n_perf.duel import validation
from gemma3n_perf.duel import validation_record as store
from gemma3n_perf.duel.validation import PlantedDuel
from gemma3n_perf.errors import InvalidError, UsageError
from tests.duel.arena import Arena, stalling
from tests.duel.duels import machine
from tests.fakes import WORKLOAD


def quiet(sd: float = 0.004, seed: int = 3) -> Callable[[str, int], float]:
    """Return seconds per token of arms that are all the same, blocks scattered by ``sd``."""
    rng = random.Random(seed)
    return lambda name, launch: 0.02 * (1 + rng.gauss(0.0, sd))


def test_every_lane_is_a_duel_that_finds_what_was_planted(tmp_path: Path) -> None:
    """A slowdown is a loss, a speed-up a win, nothing is no change; the sizes are right."""
    planted = [PlantedDuel(0.0), PlantedDuel(0.02), PlantedDuel(-0.02), PlantedDuel(0.1)]
    found = validation.round_of_duels(planted, WORKLOAD, 60.0, machine(Arena(quiet()), tmp_path), number=4)
    assert [one.verdict for one in found] == ["no-change", "loss", "win", "loss"]
    for one_planted, one in zip(planted, found, strict=True):
        assert one.truth == pytest.approx(1 / (1 + one_planted.planted) - 1)
        assert one.effect == pytest.approx(one.truth, abs=0.004)
        assert (one.round, one.budget_s) == (4, 60.0)
        assert one.measured_s <= 61.0


def test_a_lane_that_is_settled_takes_no_more_launches(tmp_path: Path) -> None:
    """A large effect stops early, beside one that goes on."""
    found = validation.round_of_duels(
        [PlantedDuel(0.003), PlantedDuel(0.5)], WORKLOAD, 60.0, machine(Arena(quiet(0.02)), tmp_path), number=1
    )
    assert len(found[1].launches) == 3
    assert len(found[0].launches) > 6


def test_the_judge_says_the_same_of_the_record(tmp_path: Path) -> None:
    """What is stored is what was judged: the record gives the same launches and truth."""
    found = validation.round_of_duels([PlantedDuel(0.05)], WORKLOAD, 60.0, machine(Arena(quiet()), tmp_path), number=1)
    read = validation.launch_estimates(found[0].launches)
    assert len(read) == len(found[0].launches)
    assert sum(one.log_ratio for one in read) / len(read) == pytest.approx(-0.0488, abs=0.003)


def test_the_record_holds_the_steps_that_were_judged(tmp_path: Path) -> None:
    """Where workers told them; read again they say what was judged."""
    here = machine(Arena(quiet(), steps_s=stalling()), tmp_path)
    (found,) = validation.round_of_duels([PlantedDuel(0.05)], WORKLOAD, 60.0, here, number=1)
    path = store.power_path(tmp_path, "cpu-fake-2c")
    kept = store.append(path, validation.head(WORKLOAD, here), [found]).duels
    assert store.read(path) == store.PowerRecord(validation.head(WORKLOAD, here), kept)
    assert len(found.launches[0].steps_s[0][0]) == 5
    assert found.effect is not None
    ratios = [one.log_ratio for one in validation.launch_estimates(kept[0].launches)]
    assert sum(ratios) / len(ratios) == pytest.approx(math.log1p(found.effect), abs=1e-6)


def test_a_lane_that_fails_fails_the_round(tmp_path: Path) -> None:
    """A campaign holds sound duels only."""
    arena = Arena(quiet(), raises={("1:+0.02", "block"): InvalidError("tokens")})
    with pytest.raises(InvalidError):
        validation.round_of_duels(
            [PlantedDuel(0.0), PlantedDuel(0.02)], WORKLOAD, 60.0, machine(arena, tmp_path), number=1
        )
    with pytest.raises(UsageError, match="no effects"):
        validation.round_of_duels([], WORKLOAD, 60.0, machine(Arena(quiet()), tmp_path), number=1)


def test_a_round_can_be_stored_and_read_again(tmp_path: Path) -> None:
    """And another is added behind it."""
    here = machine(Arena(quiet()), tmp_path)
    path = store.power_path(tmp_path, "cpu-fake-2c")
    for number in (1, 2):
        found = validation.round_of_duels([PlantedDuel(0.1)], WORKLOAD, 60.0, here, number=number)
        store.append(path, validation.head(WORKLOAD, here), found)
    kept = store.read(path)
    assert kept is not None
    assert [one.round for one in kept.duels] == [1, 2]
    assert kept.duels[1] == found[0]
