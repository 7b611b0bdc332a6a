import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.duel import validation
from gemma3n_perf.duel import validation_record as store
from gemma3n_perf.duel.run import Here
from gemma3n_perf.duel.validation_record import PowerDuel
from gemma3n_perf.duel.validation_round import PlantedDuel, go_on, is_open, launch_estimates, planned
from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.stats.policy import Policy
from tests.duel.arena import Arena, stalling
from tests.duel.duels import machine
from tests.fakes import WORKLOAD


def quiet(sd: float = 0.004, seed: int = 3) -> Callable[[str, int], float]:
    """Return seconds per token of arms that are all the same, blocks scattered by ``sd``."""
    rng = random.Random(seed)
    return lambda name, launch: 0.02 * (1 + rng.gauss(0.0, sd))


def measured(planted_duels: list[PlantedDuel], budget_s: float, here: Here, *, number: int) -> list[PowerDuel]:
    """Measure a round from its beginning to its end."""
    return go_on(planned(planted_duels, budget_s, here, number=number), WORKLOAD, here)


def test_every_lane_is_a_duel_that_finds_what_was_planted(tmp_path: Path) -> None:
    """A slowdown is a loss, a speed-up a win, nothing is no change; the sizes are right."""
    planted = [PlantedDuel(0.0), PlantedDuel(0.02), PlantedDuel(-0.02), PlantedDuel(0.1)]
    found = measured(planted, 60.0, machine(Arena(quiet()), tmp_path), number=4)
    assert [one.verdict for one in found] == ["no-change", "loss", "win", "loss"]
    for one_planted, one in zip(planted, found, strict=True):
        assert one.truth == pytest.approx(1 / (1 + one_planted.planted) - 1)
        assert one.effect == pytest.approx(one.truth, abs=0.004)
        assert (one.round, one.budget_s) == (4, 60.0)
        assert one.measured_s <= 61.0


def test_a_lane_that_is_settled_takes_no_more_launches(tmp_path: Path) -> None:
    """A large effect stops early, beside one that goes on."""
    found = measured([PlantedDuel(0.003), PlantedDuel(0.5)], 60.0, machine(Arena(quiet(0.02)), tmp_path), number=1)
    assert len(found[1].launches) == 3
    assert len(found[0].launches) > 6


def test_the_judge_says_the_same_of_the_record(tmp_path: Path) -> None:
    """What is stored is what was judged: the record gives the same launches and truth."""
    found = measured([PlantedDuel(0.05)], 60.0, machine(Arena(quiet()), tmp_path), number=1)
    read = launch_estimates(found[0].launches)
    assert len(read) == len(found[0].launches)
    assert sum(one.log_ratio for one in read) / len(read) == pytest.approx(-0.0488, abs=0.003)


def test_the_record_holds_the_steps_that_were_judged(tmp_path: Path) -> None:
    """Where workers told them; read again they say what was judged."""
    here = machine(Arena(quiet(), steps_s=stalling()), tmp_path)
    (found,) = measured([PlantedDuel(0.05)], 60.0, here, number=1)
    path = store.power_path(tmp_path, "cpu-fake-2c")
    kept = store.append(path, validation.head(WORKLOAD, here), [found]).duels
    assert store.read(path) == store.PowerRecord(validation.head(WORKLOAD, here), kept)
    assert len(found.launches[0].steps_s[0][0]) == 5
    assert found.effect is not None
    ratios = [one.log_ratio for one in launch_estimates(kept[0].launches)]
    assert sum(ratios) / len(ratios) == pytest.approx(math.log1p(found.effect), abs=1e-6)


def test_a_lane_that_fails_fails_the_round(tmp_path: Path) -> None:
    """A campaign holds sound duels only."""
    arena = Arena(quiet(), raises={("1:+0.02", "block"): InvalidError("tokens")})
    with pytest.raises(InvalidError):
        measured([PlantedDuel(0.0), PlantedDuel(0.02)], 60.0, machine(arena, tmp_path), number=1)
    with pytest.raises(UsageError, match="no effects"):
        measured([], 60.0, machine(Arena(quiet()), tmp_path), number=1)


def test_a_round_can_be_stored_and_read_again(tmp_path: Path) -> None:
    """And another is added behind it."""
    here = machine(Arena(quiet()), tmp_path)
    path = store.power_path(tmp_path, "cpu-fake-2c")
    for number in (1, 2):
        found = measured([PlantedDuel(0.1)], 60.0, here, number=number)
        store.append(path, validation.head(WORKLOAD, here), found)
    kept = store.read(path)
    assert kept is not None
    assert [one.round for one in kept.duels] == [1, 2]
    assert kept.duels[1] == found[0]


def test_a_round_that_is_cut_short_goes_on(tmp_path: Path) -> None:
    """With its open duels alone, from where they are, within the budget of each; it ends as one that was not cut."""
    plants = [PlantedDuel(0.01), PlantedDuel(0.5), PlantedDuel(0.0)]
    begun: list[list[PowerDuel]] = []
    here = machine(Arena(quiet(0.01)), tmp_path)
    cut = go_on(planned(plants, 60.0, here, number=2), WORKLOAD, here, late=lambda: True, launched=begun.append)
    fewest = Policy().min_launches
    assert [len(one.launches) for one in cut] == [fewest] * 3
    assert begun == [cut]
    assert [is_open(one, Policy()) for one in cut] == [True, False, True]
    arena = Arena(quiet(0.01, seed=4))
    ended = go_on(cut, WORKLOAD, machine(arena, tmp_path))
    assert ended[1] == cut[1]
    assert {name for _, name in arena.blocks} == {"baseline", "0:+0.01", "2:+0"}
    for before, after in zip(cut, ended, strict=True):
        assert after.launches[:fewest] == before.launches
        assert after.measured_s <= 61.0
        assert (after.round, after.budget_s, after.planted) == (before.round, before.budget_s, before.planted)
        assert not is_open(after, Policy())
    assert ended[0].verdict == "loss"


def test_launches_of_another_commit_are_named(tmp_path: Path) -> None:
    """Where a round goes on in another one."""
    here = machine(Arena(quiet(0.02)), tmp_path)
    cut = go_on(planned([PlantedDuel(0.0)], 60.0, here, number=1), WORKLOAD, here, late=lambda: True)
    (ended,) = go_on([replace(cut[0], commit="beef")], WORKLOAD, machine(Arena(quiet(0.02)), tmp_path))
    assert ended.cautions == (f"its first {Policy().min_launches} launches are of commit beef",)
    assert ended.commit == cut[0].commit


def test_no_round_is_given_away_before_each_duel_has_its_fewest_launches(tmp_path: Path) -> None:
    """Those of fewer would be no duels; and none is lost from then on."""
    begun: list[list[PowerDuel]] = []
    here = machine(Arena(quiet(0.02)), tmp_path)
    found = go_on(planned([PlantedDuel(0.0)], 30.0, here, number=1), WORKLOAD, here, launched=begun.append)
    assert [len(one.launches) for (one,) in begun] == list(range(Policy().min_launches, len(found[0].launches) + 1))
    assert begun[-1] == found
