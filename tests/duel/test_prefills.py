import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.launch import Prefills
from gemma3n_perf.duel.prefills import MOST_PAIRS, PREFILL_LAUNCHES, RUN_LAUNCHES
from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.duel.report import exit_code, render
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.duel.arena import Arena
from tests.duel.duels import NOW, asked, machine
from tests.fakes import WORKLOAD

SLOW = "MLX's 4-bit product of two rows is wrong here"


def first_tokens(change: float = 0.0, sd: float = 0.002, seconds: float = 0.05) -> Callable[[str, int], float]:
    """Return seconds of a prefill, the candidate's ``change`` longer."""
    rng = random.Random(3)
    return lambda name, launch: seconds * (1 + change * (name == "candidate")) * (1 + rng.gauss(0.0, sd))


def duel(arena: Arena, folder: Path, **changes: Any) -> dueling.DuelResult:
    """Duel in the arena."""
    return dueling.duel(asked(**changes), machine(arena, folder), NOW)


def prefills(result: dueling.DuelResult) -> list[Prefills]:
    """Return what each launch told beside decode."""
    found = [one.prefills for one in result.states[WORKLOAD].launches[:PREFILL_LAUNCHES]]
    assert None not in found
    return [one for one in found if one is not None]


@pytest.mark.parametrize(("seconds", "pairs"), [(0.01, MOST_PAIRS), (0.1, 2), (5.0, 1)])
def test_long_prefills_are_fewer(tmp_path: Path, seconds: float, pairs: int) -> None:
    """Both arms have as many in a launch, one at least."""
    arena = Arena(ttft_s=lambda name, launch: seconds)
    found = prefills(duel(arena, tmp_path))
    assert [len(one.ttft_s) for one in found] == [pairs] * len(found)
    asked_of = [worker.arm.name for worker in arena.workers[:2] for one in worker.asked if "Prefill" in repr(one)]
    assert sorted(asked_of) == ["baseline"] * pairs + ["candidate"] * pairs


@pytest.mark.parametrize(
    ("change", "word", "code"), [(0.10, "loss", 1), (-0.10, "win", 0), (0.0, "no change of 3 %", 0)]
)
def test_a_first_token_has_a_verdict_of_its_own(tmp_path: Path, change: float, word: str, code: int) -> None:
    """Decode is unchanged; the margin of 3 % is part of the word, and a loss alone exits 1."""
    found = duel(Arena(ttft_s=first_tokens(change)), tmp_path)
    assert found.judgements[WORKLOAD].verdict is Verdict.NO_CHANGE
    assert found.ttfts[WORKLOAD].word == word
    assert exit_code(found.judgements, found.ttfts) == code
    said = render(found.judgements, "ref:x", "here", found.ttfts)
    assert f"TTFT: {word}: here is " in said
    assert found.judgements[WORKLOAD].word == "no-change"


def test_a_prefill_that_means_nothing_is_invalid_and_decode_stands(tmp_path: Path) -> None:
    """With the reason, in one worker or both; no prefill is timed and the exit code is decode's."""
    found = duel(Arena(prefill_faults={"candidate": SLOW}), tmp_path)
    assert (found.ttfts[WORKLOAD].verdict, found.ttfts[WORKLOAD].reason) == (Verdict.INVALID, SLOW)
    assert exit_code(found.judgements, found.ttfts) == 0
    assert all(one.ttft_s == () and one.fault == SLOW for one in prefills(found))


def test_what_cannot_be_told_leaves_decode_its_exit_code(tmp_path: Path) -> None:
    """Prefills that scatter show nothing."""
    found = duel(Arena(ttft_s=first_tokens(sd=0.4)), tmp_path)
    assert found.ttfts[WORKLOAD].verdict is Verdict.INCONCLUSIVE
    assert exit_code(found.judgements, found.ttfts) == 0


def test_an_old_worker_times_no_prefill(tmp_path: Path) -> None:
    """Which is said; decode is judged as ever."""
    found = duel(Arena(protocols={"baseline": 6}), tmp_path)
    assert found.ttfts[WORKLOAD].verdict is Verdict.NOT_MEASURED
    assert "too old" in found.ttfts[WORKLOAD].reason
    assert found.judgements[WORKLOAD].verdict is Verdict.NO_CHANGE


def test_prefills_of_a_disturbed_machine_do_not_count(tmp_path: Path) -> None:
    """The workload has no verdict on TTFT then; memory is told nevertheless."""
    arena = Arena()
    here = machine(arena, tmp_path)
    real = here.tools.faults_of

    def faults(conditions: Any) -> Any:
        prefilling = "Prefill" in repr(arena.workers[-1].asked[-1]) or "Prefill" in repr(arena.workers[-2].asked[-1])
        return arena.faults(replace(conditions, steal=0.5)) if prefilling else real(conditions)

    result = dueling.duel(asked(), replace(here, tools=replace(here.tools, faults_of=faults)), NOW)
    assert "disturbed" in result.ttfts[WORKLOAD].reason
    assert all(one.kv_bytes == (640, 640) for one in prefills(result))


@pytest.mark.parametrize(("peak", "cautioned"), [(1_000, False), (1_005, False), (1_180, True), (800, False)], ids=str)
def test_a_peak_that_rose_is_a_caution(tmp_path: Path, peak: int, cautioned: bool) -> None:
    """Between fresh processes: no process that ran before raises it."""
    found = duel(Arena(peaks={"candidate": peak}), tmp_path)
    cautions = [one for one in found.judgements[WORKLOAD].cautions if one.code == "memory-risen"]
    assert bool(cautions) is cautioned
    if cautioned:
        assert cautions[0].found == "peak memory 1 kB -> 1.18 kB (+18.0 %)"
    assert exit_code(found.judgements, found.ttfts) == 0


def test_runs_are_taken_where_they_were_requested(tmp_path: Path) -> None:
    """One of the candidate in each launch, as long as the workload; none otherwise."""
    found = prefills(duel(Arena(), tmp_path, runs=True))
    assert [len(one.runs) for one in found[:4]] == [1, 1, 1, 0][: len(found)]
    assert len(found) >= RUN_LAUNCHES
    assert all(run.run.tokens == 64 for one in found for run in one.runs)
    assert all(one.runs == () for one in prefills(duel(Arena(), tmp_path)))


def test_launches_judged_again_give_the_same(tmp_path: Path) -> None:
    """A record holds what the verdict on TTFT rests on."""
    result = duel(Arena(ttft_s=first_tokens(0.1)), tmp_path)
    record = dueling.record_of(result, machine(Arena(), tmp_path).chip)
    again = DUELS.read(DUELS.write(tmp_path / "duel.json", record))
    assert isinstance(again.duels[0].ttft, Judgement)
    assert again.duels[0].ttft.verdict is Verdict.LOSS
    assert again.duels[0].raw == result.states[WORKLOAD].launches
