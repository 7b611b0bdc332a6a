import datetime as dt
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.judgements import judgements
from gemma3n_perf.duel.launch_plan import LEAST_PAIRS, launch_pairs
from gemma3n_perf.duel.scheduler import ComparisonState, Rules
from gemma3n_perf.errors import InvalidError, NonFiniteError, UsageError, WorkerFailedError
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import noise_floor
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict
from gemma3n_perf.store import noise
from tests.duel.arena import Arena, FakeWorker, noisy, stalling, with_version
from tests.duel.duels import NOW, asked, machine
from tests.fakes import CHIP, STACK, WORKLOAD


def duel(arena: Arena, tmp_path: Path, **changes: object) -> dueling.DuelResult:
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
    found = duel(Arena(noisy(launch_sd=0.002)), tmp_path, candidate=candidate).judgements[WORKLOAD]
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
    unchecked = {"baseline": 12}  # blocks that are looked at take of the same noise
    arena = Arena(noisy(), steps_s=stalling(), whole_tpot_s=noisy(block_sd=0.01, seed=12), protocols=unchecked)
    found = duel(arena, tmp_path, candidate=candidate).judgements[WORKLOAD]
    assert found.verdict is verdict
    assert found.low is not None
    assert found.high is not None
    assert effect - 0.03 < found.low < found.high < effect + 0.03
    silent = Arena(
        noisy(), steps_s=stalling(), silent=frozenset({"baseline"}), whole_tpot_s=noisy(block_sd=0.01, seed=12),
        protocols=unchecked,
    )  # fmt: skip
    blocks = duel(silent, tmp_path, candidate=candidate).judgements[WORKLOAD]
    assert blocks.verdict in (verdict, Verdict.INCONCLUSIVE)


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
    """10 % needs no more than 23 s of measuring."""
    for seed in range(5):
        found = duel(Arena(noisy(seed=seed), seed=seed), tmp_path, candidate="here+plant:+10%").judgements[WORKLOAD]
        assert found.verdict is Verdict.LOSS
        assert found.measured_s <= 23.0


def test_launches_of_nano_measure_three_to_five_seconds(tmp_path: Path) -> None:
    """In blocks of five tokens that count."""
    launch = duel(Arena(noisy()), tmp_path).states[WORKLOAD].launches[0]
    assert launch.steps == 7
    assert 3.0 <= launch.seconds <= 5.0


def test_a_slow_workload_has_the_fewest_pairs_and_no_fewer(tmp_path: Path) -> None:
    """At 2 s a token a launch of six pairs is as short as it gets."""
    arena = Arena(lambda name, launch: 2.0)
    launch = duel(arena, tmp_path, workloads=("e2b-4bit/text/pp4-tg4",), budget_s=400.0)
    assert len(launch.states["e2b-4bit/text/pp4-tg4"].launches[0].pairs) == LEAST_PAIRS


def test_a_budget_too_short_names_the_shortest_before_measuring(tmp_path: Path) -> None:
    """And that shortest works."""
    arena = Arena()
    with pytest.raises(UsageError, match="too short: 3 launches of 6 pairs") as caught:
        duel(arena, tmp_path, budget_s=2.0)
    assert arena.probed == 0
    assert duel(Arena(noisy()), tmp_path, budget_s=2.0, flexible=True).judgements[WORKLOAD].launches == 3
    shortest = float((caught.value.remedy or "").split()[-1])
    assert duel(Arena(noisy()), tmp_path, budget_s=shortest).judgements[WORKLOAD].launches >= 3


def test_a_short_budget_still_holds_the_fewest_launches(tmp_path: Path) -> None:
    """Launches shrink until three fit."""
    assert launch_pairs(Policy(), Rules(6.0, 3))(0.24, 5.0) == 8
    assert launch_pairs(Policy(), Rules(6.0, 3, sessions=1))(0.24, 0.0) == 8


@pytest.mark.parametrize(
    ("budget_s", "start_s", "calibrated", "launch_s"),
    [
        (60.0, 2.0, False, 3.0),
        (60.0, 10.0, False, 7.5),
        (120.0, 25.0, False, 15.0),
        (120.0, 25.0, True, 25.0),
        (60.0, 25.0, True, 15.0),
        (400.0, 60.0, True, 30.0),
        (60.0, 2.0, True, 3.0),
        (20.0, 10.0, False, 3.0),
    ],
)
def test_launches_of_slow_starters_are_longer(
    budget_s: float, start_s: float, calibrated: bool, launch_s: float
) -> None:
    """As long as the start, so that starts do not take most of the time; an eighth of the budget at most, so that
    launches are not few, or a quarter where their spread is known."""
    pairs = launch_pairs(Policy(), Rules(budget_s, 3), calibrated=calibrated)(0.25, start_s)
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
    found = duel(Arena(noisy()), tmp_path, settle=False, budget_s=30.0).states[WORKLOAD]
    assert found.spent
    assert found.seconds > 24.0


def test_cautions_tell_plants_and_other_tokens(tmp_path: Path) -> None:
    """What makes an answer no plain answer stands beside it."""
    arena = Arena(noisy(), tokens={"candidate": "t2"}, stacks={"candidate": with_version(mlx="0.32.3")})
    found = duel(arena, tmp_path, candidate="mlx==0.32.3+plant:+2%", outputs_may_differ=True).judgements[WORKLOAD]
    assert {"planted", "outputs-differ", "noise-missing"} <= {caution.code for caution in found.cautions}


def test_a_workload_twice_is_refused(tmp_path: Path) -> None:
    """It would be two claims from one question."""
    with pytest.raises(UsageError, match="workloads"):
        duel(Arena(), tmp_path, workloads=(WORKLOAD, WORKLOAD))


def several(arena: Arena, tmp_path: Path, **changes: object) -> dict[str, Judgement]:
    """Compare two candidates with here; judgements by candidate."""
    options: dict[str, object] = {
        "candidates": ("ref:x", "ref:y"),
        "workloads": (WORKLOAD,),
        "budget_s": 60.0,
    } | changes
    result = dueling.duel(dueling.DuelSpec("here", **({"budget_s": 60.0} | options)), machine(arena, tmp_path), NOW)  # type: ignore[arg-type]
    return {name: one.judgement for (_, name), one in result.comparisons.items()}


def test_candidates_of_a_field_are_judged_each_for_itself(tmp_path: Path) -> None:
    """One is faster, one is not, through the same launches; the decided one stops first."""
    times = {"0:ref:x": 0.0185}
    judged = several(Arena(lambda name, launch: times.get(name, 0.02)), tmp_path)
    assert {name: one.verdict for name, one in judged.items()} == {"0:ref:x": "win", "1:ref:y": "no-change"}
    assert judged["0:ref:x"].effect == pytest.approx(0.02 / 0.0185 - 1)


def test_a_candidate_that_cannot_be_measured_leaves_the_rest_of_the_field(tmp_path: Path) -> None:
    """Its error is its own judgement."""
    judged = several(Arena(raises={("1:ref:y", "prepare"): NonFiniteError("12 logits are NaN")}), tmp_path)
    assert (judged["1:ref:y"].verdict, judged["1:ref:y"].reason) == (Verdict.INVALID, "12 logits are NaN")
    assert judged["0:ref:x"].verdict is Verdict.NO_CHANGE


def test_workloads_of_a_candidate_are_one_family_whatever_the_field_holds(tmp_path: Path) -> None:
    """A candidate's interval does not depend on who else took part."""
    alone = several(Arena(noisy()), tmp_path, candidates=("ref:x",), settle=False, budget_s=20.0)
    both = several(Arena(noisy()), tmp_path, settle=False, budget_s=20.0)
    assert alone["candidate"].level == both["0:ref:x"].level


def test_blocks_that_whole_runs_do_not_bear_out_are_invalid(tmp_path: Path) -> None:
    """A program that remembers what it computed is fast in blocks that repeat, and nowhere else."""
    arena = Arena(noisy(effect=0.09), whole_tpot_s=noisy(effect=0.0, seed=11))
    found = duel(arena, tmp_path).judgements[WORKLOAD]
    assert found.verdict is Verdict.INVALID
    assert "whole runs" in found.reason
    honest = Arena(noisy(effect=0.09), whole_tpot_s=noisy(effect=0.09, seed=11))
    assert duel(honest, tmp_path).judgements[WORKLOAD].verdict is Verdict.WIN


def test_what_whole_runs_miss_twofold_in_every_launch_needs_no_quiet_machine(tmp_path: Path) -> None:
    """Launches that scatter by a third make no t test of three of them sure."""
    arena = Arena(noisy(effect=8.0), whole_tpot_s=noisy(launch_sd=0.3, seed=11))
    found = duel(arena, tmp_path).judgements[WORKLOAD]
    assert (found.verdict, found.launches) == (Verdict.INVALID, 3)


def test_what_is_done_while_a_whole_runs_prompt_is_read_is_seen_from_outside(tmp_path: Path) -> None:
    """Steps that are decoded ahead there make the run fast by its own clock; a prompt may take a little longer."""
    honest = Arena(noisy(launch_sd=0.002), read_s={"baseline": 0.5, "candidate": 0.6})
    assert duel(honest, tmp_path).judgements[WORKLOAD].verdict is Verdict.NO_CHANGE
    fast = noisy(effect=0.09, launch_sd=0.002)
    ahead = Arena(fast, read_s={"baseline": 0.5, "candidate": 1.2}, whole_tpot_s=fast)
    found = duel(ahead, tmp_path).judgements[WORKLOAD]
    assert found.verdict is Verdict.INVALID
    assert re.search(
        r"a whole run of the candidate takes [\d.]+ ms a token outside its own clock, .* launches", found.reason
    )


def test_a_candidate_that_works_while_the_baselines_whole_run_is_timed_is_invalid(tmp_path: Path) -> None:
    """Though it rests while blocks are."""
    arena = Arena(noisy(launch_sd=0.002))

    def used(pid: int) -> float:
        candidates = {1 + one.number for one in arena.workers if one.arm.name == "candidate"}
        return arena.clock() if pid in candidates and arena.whole_runs else 0.0

    arena.cpu_s = used
    found = duel(arena, tmp_path).judgements[WORKLOAD]
    assert found.verdict is Verdict.INVALID
    assert "s of CPU time in" in found.reason


def test_every_launch_has_another_prompt_and_one_whole_run_of_each_arm(tmp_path: Path) -> None:
    """Nothing that was kept from one launch, or from the blocks, is of use."""
    arena = Arena(noisy())
    duel(arena, tmp_path)
    launches = len(arena.workers) // 2
    loads = [one.variant for worker in arena.workers for one in worker.asked if isinstance(one, wire.Load)]
    assert loads == [loads[0] + 2 * launch for launch in range(launches) for _ in range(2)]
    assert sorted(arena.whole_runs) == sorted(
        (launch, name, loads[0] + 2 * launch + 1) for launch in range(launches) for name in ("baseline", "candidate")
    )
    again = Arena(noisy(), seed=4)
    duel(again, tmp_path)
    first = next(one.variant for worker in again.workers for one in worker.asked if isinstance(one, wire.Load))
    assert first != loads[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"whole_tokens": {"candidate": (7,) * 4 + (8,) * 60}}, "from step 5 of a whole run"),
        ({"logits": {"candidate": np.ones(8, dtype=np.float32) * 1.01}}, "lie 1 % apart"),
        ({"logits": {"candidate": np.full(8, np.nan, dtype=np.float32)}}, "not finite"),
    ],
)
def test_a_whole_run_that_says_something_else_is_invalid(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Tokens and logits are those of the run that was timed; where they may differ, it is a caution."""
    found = duel(Arena(noisy(), **changes), tmp_path).judgements[WORKLOAD]
    assert found.verdict is Verdict.INVALID
    assert said in found.reason
    found = duel(Arena(noisy(), **changes), tmp_path, outputs_may_differ=True).judgements[WORKLOAD]
    assert found.verdict is not Verdict.INVALID
    assert any(said in caution.found for caution in found.cautions if caution.code == "outputs-differ")


@pytest.mark.parametrize(("spoken", "known"), [(wire.PROTOCOL, True), (11, False)])
def test_a_whole_run_takes_tokens_that_none_can_guess(tmp_path: Path, spoken: int, known: bool) -> None:
    """The same in both arms, others in each launch, about every third; none where a worker knows none of it."""
    arena = Arena(noisy(), protocols={"candidate": spoken})
    duel(arena, tmp_path)
    runs = [
        (worker.launch, one.forced)
        for worker in arena.workers
        for one in worker.asked
        if isinstance(one, wire.WholeRun)
    ]
    by_launch = {number: {forced for launch, forced in runs if launch == number} for number, _ in runs}
    assert all(len(forced) == 1 for forced in by_launch.values())
    assert (len(set.union(*by_launch.values())) == len(by_launch)) is known
    steps = [step for _, forced in runs for step, _ in forced]
    assert bool(steps) is known
    assert all(1 <= step < 64 for step in steps)


LEADS = np.array([0.5] * 7 + [1.0, 1.0 - 1e-4], dtype=np.float32)
PARTED = {"candidate": (7,) * 4 + (8,) * 60}


def tie(**changes: Any) -> Arena:
    """Arms whose whole runs part at step 5, where tokens 7 and 8 lie as near as rounding moves them."""
    logits = {"baseline": LEADS, "candidate": LEADS[[*range(7), 8, 7]]}
    usual = {"tpot_s": noisy(0.1), "whole_tokens": PARTED, "logits": logits, "seed": 2}
    return Arena(**{**usual, **changes})


@pytest.mark.parametrize("name", ["whole_tokens", "tokens"])
def test_a_near_tie_now_and_then_is_a_caution(tmp_path: Path, name: str) -> None:
    """An honest fusion rounds differently; from there on the arms decode other texts. The record says where."""
    once = {"tokens": {"candidate": "tokens:2"}, "whole_tokens": {}} if name == "tokens" else {}
    found = duel(tie(differs=lambda launch: launch == 1, **once), tmp_path)
    judged = found.judgements[WORKLOAD]
    assert judged.verdict is Verdict.WIN
    assert [one.code for one in judged.cautions].count("near-tie") == 1
    at = 5 if name == "whole_tokens" else 0
    assert [one.parted_at for one in found.states[WORKLOAD].launches] == [
        at if n == 1 else None for n in range(judged.launches)
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "launches: too many for near ties"),
        ({"whole_tokens": {}, "tokens": {"candidate": "tokens:2"}}, "launches: too many for near ties"),
        ({"logits": {"baseline": LEADS, "candidate": LEADS}}, "from step 5 of a whole run"),
        ({"logits": {"baseline": LEADS - np.eye(9, dtype=np.float32)[8] * 0.01, "candidate": LEADS[[*range(7), 8, 7]]}},
         "from step 5 of a whole run"),
        ({"logits": {"baseline": LEADS, "candidate": LEADS[[*range(7), 8, 7]] * 1.01}}, "from step 5 of a whole run"),
        ({"whole_tokens": {"candidate": (7,) * 4 + (9,) * 60}}, "from step 5 of a whole run"),
        ({"whole_tokens": {"candidate": (7,) * 4 + (-1,) * 60}}, "from step 5 of a whole run"),
    ],
)  # fmt: skip
def test_what_is_no_near_tie_or_always_one_is_invalid(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """A token that does not lead in its own logits, or not nearly in the other's; ties all the time."""
    judged = duel(tie(**changes), tmp_path).judgements[WORKLOAD]
    assert judged.verdict is Verdict.INVALID
    assert said in judged.reason


def test_an_arm_that_decodes_another_text_the_second_time_is_invalid(tmp_path: Path) -> None:
    """What parted the texts cannot be looked at again."""
    arena = tie()
    arena.differs = lambda launch: len(arena.whole_runs) < 3
    judged = duel(arena, tmp_path).judgements[WORKLOAD]
    assert (judged.verdict, judged.launches) == (Verdict.INVALID, 0)


def test_beside_an_older_worker_there_is_no_whole_run(tmp_path: Path) -> None:
    """Use the oldest worker's feature set for all arms."""
    arena = Arena(noisy(launch_sd=0.002), protocols={"baseline": 4}, seed=2)
    assert duel(arena, tmp_path).judgements[WORKLOAD].verdict is Verdict.NO_CHANGE
    assert arena.whole_runs == []
    assert {one.variant for worker in arena.workers for one in worker.asked if isinstance(one, wire.Load)} == {0}


@pytest.mark.parametrize("shape", ["pp1240-tg64", "pp40-tg64-b4", "pp40-tg64-v2", "pp40-tg64-kv8", "pp40-tg0"])
def test_a_worker_that_is_too_old_for_a_workload_leaves_it_not_measured(tmp_path: Path, shape: str) -> None:
    """With the reason; beside a worker of today it is judged."""
    workload = f"nano/text/{shape}"
    found = duel(Arena(noisy(), protocols={"baseline": 8}), tmp_path, workloads=(workload,)).judgements[workload]
    assert found.verdict is Verdict.NOT_MEASURED
    assert f"too old for {workload}" in found.reason
    (tmp_path / "today").mkdir()
    found = duel(Arena(noisy(launch_sd=0.002)), tmp_path / "today", workloads=(workload,)).judgements[workload]
    assert found.verdict is Verdict.NO_CHANGE


def in_little_memory(arena: Arena, tmp_path: Path, memory: int = 2_000) -> dueling.DuelResult:
    """Carry out a duel over a checkpoint of 1,000 bytes."""
    folder = tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(bytes(1_000))
    here = machine(arena, tmp_path)
    here = replace(here, chip=replace(here.chip, memory_bytes=memory))
    return dueling.duel(asked(workloads=("mine/text/pp40-tg64",), sources={"mine": str(folder)}), here, NOW)


@pytest.mark.parametrize(("memory", "shared"), [(8 * 2**30, False), (2_000, True)])
def test_one_process_is_shared_only_where_memory_forces_it(tmp_path: Path, memory: int, shared: bool) -> None:
    """And then the record says so, and every launch has what the baseline takes without fusions."""
    result = in_little_memory(Arena(noisy()), tmp_path, memory)
    assert ({arm.process for arm in result.arms} == {"shared"}) is shared
    (judged,) = result.judgements.values()
    assert judged.verdict in (Verdict.NO_CHANGE, Verdict.INCONCLUSIVE)
    assert ("shared-process" in {caution.code for caution in judged.cautions}) is shared
    launches = next(iter(result.states.values())).launches
    assert {launch.alone_s is not None for launch in launches} == {shared}


def test_a_baseline_that_is_slowed_in_a_shared_process_is_found_out(tmp_path: Path) -> None:
    """By a process of its own, that ends before the shared one starts; not where processes scatter as they do."""
    arena = Arena(noisy(effect=-0.3), slowed=1.5)
    (judged,) = in_little_memory(arena, tmp_path).judgements.values()
    assert judged.verdict is Verdict.INVALID
    assert "ms a token in the process that it shares with fusions" in judged.reason
    assert judged.launches == 3
    assert [worker.arm.group for worker in arena.workers] == ["", "shared"] * 3
    assert all(worker.closed for worker in arena.workers)


def scattering(factor: Callable[[FakeWorker], float], tpot_s: Callable[[str, int], float]) -> Arena:
    """Return an arena whose processes are slower by a factor of their own."""
    arena = Arena()
    arena.tpot_s = lambda name, launch: tpot_s(name, launch) * factor(arena.workers[-1])
    return arena


def test_processes_that_scatter_slow_nobody(tmp_path: Path) -> None:
    """By 7 % each, on a shared host. One in a hundred is taken for it, by whole runs or by the baseline alone."""
    rng, verdicts = random.Random(5), []
    for seed in range(20):
        factors: dict[int, float] = {}
        arena = scattering(lambda one: factors.setdefault(id(one), 1 + rng.gauss(0.0, 0.07)), noisy(seed=seed))  # noqa: B023
        (judged,) = in_little_memory(arena, tmp_path).judgements.values()
        verdicts.append(judged.verdict)
    assert verdicts.count(Verdict.INVALID) <= 1
    assert not {Verdict.WIN, Verdict.LOSS}.intersection(verdicts)


def test_a_baseline_that_seems_slowed_keeps_a_verdict_from_being_said(tmp_path: Path) -> None:
    """By more than a tenth, where launches scatter too far to be sure of it."""
    arena = scattering(
        lambda one: 1.0 if one.arm.group else 0.5 if one.launch % 3 else 1.0,
        lambda name, launch: 0.018 if name == "candidate" else 0.02,
    )
    result = in_little_memory(arena, tmp_path)
    (judged,) = result.judgements.values()
    assert "it is slowed there" in judged.reason
    launches = next(iter(result.states.values())).launches
    assert len(launches) > 3
    early = judgements(
        {"w": ComparisonState("w", launches[:3])}, budget_s=60.0, policy=Policy(), noise=None, today=NOW.date()
    )
    assert early["w"].verdict is Verdict.INCONCLUSIVE
