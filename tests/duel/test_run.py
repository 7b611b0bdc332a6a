import datetime as dt
import random
from pathlib import Path

import pytest

from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.launch_plan import LEAST_PAIRS, pace
from gemma3n_perf.duel.scheduler import ComparisonState, Rules
from gemma3n_perf.errors import InvalidError, NonFiniteError, UsageError, WorkerFailedError
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import noise_floor
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict
from gemma3n_perf.store import noise
from tests.duel.arena import Arena, noisy, stalling, with_version
from tests.duel.duels import NOW, asked, machine
from tests.fakes import CHIP, STACK, WORKLOAD


def duel(arena: Arena, tmp_path: Path, **changes: object) -> dueling.Answer:
    """Carry a duel out in an arena."""
    return dueling.duel(asked(**changes), machine(arena, tmp_path), NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("candidate", "verdict", "effect"),
    [
        ("here+plant:+2%", Verdict.LOSS, 1 / 1.02 - 1),
        ("here+plant:-2%", Verdict.WIN, 1 / 0.98 - 1),
        ("ref:x", Verdict.NO_CHANGE, 0.0),
    ],
)
def test_what_was_planted_is_found(tmp_path: Path, candidate: str, verdict: Verdict, effect: float) -> None:
    """Over 60 s of noisy blocks, with its size inside the interval."""
    found = duel(Arena(noisy()), tmp_path, candidate=candidate).judgements[WORKLOAD]
    assert found.verdict is verdict
    assert found.low is not None
    assert found.high is not None
    assert found.low <= effect <= found.high


@pytest.mark.parametrize(
    ("candidate", "verdict", "effect"),
    [
        ("here+plant:+2%", Verdict.LOSS, 1 / 1.02 - 1),
        ("here+plant:-2%", Verdict.WIN, 1 / 0.98 - 1),
        ("ref:x", Verdict.INCONCLUSIVE, 0.0),
    ],
)
def test_stalls_of_single_steps_do_not_hide_what_was_planted(
    tmp_path: Path, candidate: str, verdict: Verdict, effect: float
) -> None:
    """Where workers tell the steps of a block: whole blocks scatter by half of what they take, so that what stalls
    might hide is not called nothing."""
    found = duel(Arena(noisy(), steps_s=stalling()), tmp_path, candidate=candidate).judgements[WORKLOAD]
    assert found.verdict is verdict
    assert found.low is not None
    assert found.high is not None
    assert effect - 0.03 < found.low < found.high < effect + 0.03
    silent = Arena(noisy(), steps_s=stalling(), silent=frozenset({"baseline"}))
    assert duel(silent, tmp_path, candidate=candidate).judgements[WORKLOAD].verdict is Verdict.INCONCLUSIVE


def test_an_arm_that_is_slow_now_and_then_is_slower(tmp_path: Path) -> None:
    """A third of its steps take half as long again, and aligned, the others would hide it. It says how it was read."""
    rng = random.Random(5)

    def steps(tpot: float) -> tuple[float, ...]:
        now_and_then = tpot > 0.025
        return tuple(
            0.02 * (1 + rng.gauss(0.0, 0.02)) * (1 + 0.5 * (now_and_then and rng.random() < 0.33)) for _ in range(5)
        )

    arena = Arena(lambda name, launch: 0.03 if name == "candidate" else 0.02, steps_s=steps)
    found = duel(arena, tmp_path).judgements[WORKLOAD]
    assert found.verdict == Verdict.LOSS
    assert found.effect == pytest.approx(1 / (1 + 0.33 * 0.5) - 1, abs=0.02)
    assert "shape" in {caution.code for caution in found.cautions}
    plain = duel(Arena(noisy(), steps_s=stalling()), tmp_path).judgements[WORKLOAD]
    assert "shape" not in {caution.code for caution in plain.cautions}


def test_a_large_effect_stops_early(tmp_path: Path) -> None:
    """10 % needs no more than 20 s of measuring."""
    for seed in range(5):
        found = duel(Arena(noisy(seed=seed), seed=seed), tmp_path, candidate="here+plant:+10%").judgements[WORKLOAD]
        assert found.verdict is Verdict.LOSS
        assert found.measured_s <= 20.0


def test_launches_of_nano_measure_three_to_five_seconds(tmp_path: Path) -> None:
    """In blocks of five tokens that count."""
    launch = duel(Arena(noisy()), tmp_path).fought[WORKLOAD].launches[0]
    assert launch.steps == 7
    assert 3.0 <= launch.seconds <= 5.0


def test_a_slow_workload_has_the_fewest_pairs_and_no_fewer(tmp_path: Path) -> None:
    """At 2 s a token a launch of six pairs is as short as it gets."""
    arena = Arena(lambda name, launch: 2.0)
    launch = duel(arena, tmp_path, workloads=("e2b-4bit/text/pp4-tg4",), budget_s=400.0)
    assert len(launch.fought["e2b-4bit/text/pp4-tg4"].launches[0].pairs) == LEAST_PAIRS


def test_a_budget_too_short_names_the_shortest_before_measuring(tmp_path: Path) -> None:
    """And that shortest works."""
    arena = Arena()
    with pytest.raises(UsageError, match="too short: 3 launches of 6 pairs") as caught:
        duel(arena, tmp_path, budget_s=2.0)
    assert arena.probed == 0
    shortest = float((caught.value.remedy or "").split()[-1])
    assert duel(Arena(noisy()), tmp_path, budget_s=shortest).judgements[WORKLOAD].launches >= 3


def test_a_short_budget_still_holds_the_fewest_launches(tmp_path: Path) -> None:
    """Launches shrink until three fit."""
    assert pace(Policy(), Rules(6.0, 3))(0.24, 5.0) == 8
    assert pace(Policy(), Rules(6.0, 3, sessions=1))(0.24, 0.0) == 8


@pytest.mark.parametrize(
    ("budget_s", "start_s", "launch_s"), [(60.0, 2.0, 3.0), (60.0, 10.0, 7.5), (120.0, 15.0, 10.0), (20.0, 10.0, 3.0)]
)
def test_launches_of_slow_starters_are_longer(budget_s: float, start_s: float, launch_s: float) -> None:
    """So that starts do not take most of the time; an eighth of the budget at most, so that launches are not few."""
    pairs = pace(Policy(), Rules(budget_s, 3))(0.25, start_s)
    assert 0.25 * pairs == pytest.approx(launch_s, abs=0.3)


@pytest.mark.parametrize(
    ("error", "verdict"), [(WorkerFailedError("hung", remedy="r"), "not-measured"), (InvalidError("tokens"), "invalid")]
)
def test_a_failure_is_the_verdict_of_its_workload(tmp_path: Path, error: WorkerFailedError, verdict: str) -> None:
    """With its words, after however many good launches; it is never judged by those."""
    arena = Arena(noisy(), raises={("candidate", "block"): error}, from_launch=4)
    found = duel(arena, tmp_path).judgements[WORKLOAD]
    assert (found.verdict, found.reason, found.launches) == (verdict, error.found, 4)
    assert [caution.remedy for caution in found.cautions] == ([error.remedy] if error.remedy else [])


def test_several_workloads_are_judged_as_one_family(tmp_path: Path) -> None:
    """Each at its share of the error, by Holm's procedure."""
    other = "nano/text/pp140-tg64"
    arena = Arena(noisy())
    found = duel(arena, tmp_path, candidate="here+plant:+5%", workloads=(WORKLOAD, other)).judgements
    assert [one.verdict for one in found.values()] == [Verdict.LOSS, Verdict.LOSS]
    assert found[WORKLOAD].level == pytest.approx(0.975)


def test_the_calibrated_noise_of_the_class_is_used(tmp_path: Path) -> None:
    """Or said to be missing, or stale."""
    assert duel(Arena(noisy()), tmp_path).judgements[WORKLOAD].noise is NoiseStatus.MISSING
    duels = [(0.006, -0.008, 0.004, -0.005), (0.007, -0.004, -0.006, 0.005)]
    raw = tuple(noise.AaDuel(WORKLOAD, one, (4.0,) * 4) for one in duels)
    for day, status in ((dt.date(2026, 6, 30), NoiseStatus.USED), (dt.date(2025, 6, 30), NoiseStatus.STALE)):
        noise.write(tmp_path, noise.NoiseRecord(1, day.isoformat(), CHIP, STACK, noise_floor(duels, day), raw))
        assert duel(Arena(noisy()), tmp_path).judgements[WORKLOAD].noise is status


def test_an_unsettled_duel_measures_to_the_end(tmp_path: Path) -> None:
    """Calibration wants every launch, whatever they show."""
    found = duel(Arena(noisy()), tmp_path, settle=False, budget_s=30.0).fought[WORKLOAD]
    assert found.spent
    assert found.seconds > 24.0


def test_cautions_tell_plants_and_other_tokens(tmp_path: Path) -> None:
    """What makes an answer no plain answer stands beside it."""
    arena = Arena(noisy(), tokens={"candidate": "t2"}, stacks={"candidate": with_version(mlx="0.32.3")})
    found = duel(arena, tmp_path, candidate="mlx==0.32.3+plant:+2%").judgements[WORKLOAD]
    assert {"planted", "tokens-differ", "noise-missing"} <= {caution.code for caution in found.cautions}


def test_a_workload_twice_is_refused(tmp_path: Path) -> None:
    """It would be two claims from one question."""
    with pytest.raises(UsageError, match="workloads"):
        duel(Arena(), tmp_path, workloads=(WORKLOAD, WORKLOAD))


def field(arena: Arena, tmp_path: Path, **changes: object) -> dict[tuple[str, str], tuple[ComparisonState, Judgement]]:
    """Contest two candidates against here."""
    options: dict[str, object] = {"names": ("ref:x", "ref:y"), "workloads": (WORKLOAD,), "budget_s": 60.0} | changes
    return dueling.contested(dueling.Field("here", **options), machine(arena, tmp_path), NOW.date())  # type: ignore[arg-type]


def test_candidates_of_a_field_are_judged_each_for_itself(tmp_path: Path) -> None:
    """One is faster, one is not, through the same launches; the decided one stops first."""
    times = {"0:ref:x": 0.0185}
    found = field(Arena(lambda name, launch: times.get(name, 0.02)), tmp_path)
    judged = {name: one[1] for (_, name), one in found.items()}
    assert {name: one.verdict for name, one in judged.items()} == {"0:ref:x": "win", "1:ref:y": "no-change"}
    assert judged["0:ref:x"].effect == pytest.approx(0.02 / 0.0185 - 1)


def test_a_candidate_that_cannot_be_measured_leaves_the_rest_of_the_field(tmp_path: Path) -> None:
    """Its error is its own judgement."""
    found = field(Arena(raises={("1:ref:y", "prepare"): NonFiniteError("12 logits are NaN")}), tmp_path)
    verdicts = {name: (one[1].verdict, one[1].reason) for (_, name), one in found.items()}
    assert verdicts["1:ref:y"] == (Verdict.INVALID, "12 logits are NaN")
    assert verdicts["0:ref:x"][0] is Verdict.NO_CHANGE


def test_workloads_of_a_candidate_are_one_family_whatever_the_field_holds(tmp_path: Path) -> None:
    """A candidate's interval does not depend on who else took part."""
    alone = field(Arena(noisy()), tmp_path, names=("ref:x",), settle=False, budget_s=20.0)
    both = field(Arena(noisy()), tmp_path, settle=False, budget_s=20.0)
    assert next(iter(alone.values()))[1].level == next(iter(both.values()))[1].level


def test_a_field_in_one_room_has_two_processes(tmp_path: Path) -> None:
    """All candidates share one, beside the baseline's."""
    arena = Arena()
    field(arena, tmp_path, together=True, budget_s=20.0)
    starts = {id(worker): worker.arm.home for worker in arena.workers[:2]}
    assert sorted(starts.values()) == ["baseline", "candidates"]
