"""A whole profile: what fails costs itself, and each part is handed over as soon as it is there. On the forged nano."""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.errors import CheckpointMissingError, InvalidError, NotMeasuredError
from gemma3n_perf.hardware.shell import Done
from gemma3n_perf.hardware.types import Conditions, Fault
from gemma3n_perf.profile.rounds import TimePlan, time_plan, until
from gemma3n_perf.profile.run import Profiler, Tools
from gemma3n_perf.profile.sweeps import Setting
from gemma3n_perf.profile.types import PARTS, WorkloadProfile
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from gemma3n_perf.workload.workload import Workload
from tests.decode import fakes
from tests.fakes import STACK

SHORT = TimePlan(6, 2, 3, (4, 12), 1.0, None, dict.fromkeys(PARTS, 0.0))


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that holds nano."""
    return fakes.nano_root(tmp_path_factory.getbasetemp())


def tools(notes: list[str] | None = None, **changes: Any) -> Tools:
    """Return tools whose duels and commands are made up; the clock and the model are real."""

    def compete(arms: Sequence[str], seconds: float) -> Mapping[str, Judgement]:
        return {arm: Judgement(Verdict.WIN, "above", 0.1, 0.08, 0.12, launches=3) for arm in arms}

    ticks = {1: 0.0, 2: 0.0}

    def thread_times() -> dict[int, float]:
        ticks[2] += 0.5
        return dict(ticks)

    made = Tools(
        clock=time.perf_counter, device=MlxDevice(), probe=fakes.FakeProbe(), faults_of=lambda conditions: (),
        run=lambda argv, timeout_s: Done(127, "", "no such program"), compete=compete, reads=lambda name: True,
        today=lambda: "2026-11-22T10:00:00+00:00", rng=random.Random(1),
        note=(notes if notes is not None else []).append, thread_times=thread_times, own_thread=1,
    )  # fmt: skip
    return replace(made, **changes)


def profiler(root: Path, *parts: str, made: Tools | None = None, **changes: Any) -> Profiler:
    """Return what profiles parts of nano, by the shortest plan."""
    asked: dict[str, Any] = {
        "workload": Workload.parse("nano/text/pp4-tg4"),
        "source": "nano",
        "root": root,
        "parts": parts or PARTS,
        "plan": SHORT,
        "stack": replace(STACK, backend="cpu", commit="c" * 40, dirty=False, knobs={}),
        "tools": made or tools(),
        "settings": (Setting.parse("MLX_A=1"),),
    }
    return Profiler(**asked | changes)


def test_a_whole_profile_of_nano(root: Path) -> None:
    """Every part is measured, dated and handed over once, in order; progress says how long it will take."""
    notes: list[str] = []
    kept: list[WorkloadProfile] = []
    found = profiler(root, made=tools(notes)).measure(kept.append)
    assert found.missing == ()
    assert list(found.taken) == list(PARTS)
    assert [list(one.taken) for one in kept] == [[part] for part in PARTS]
    assert found.floor is not None
    assert found.floor.streamed_bytes == 3_069_056
    assert found.contexts is not None
    assert [one.positions for one in found.contexts.points] == [8, 16]
    assert found.contexts.image_missing == "a prompt with an image takes too long on this device"
    assert found.engines is not None
    assert [one.first_difference for one in found.engines.results[:2]] == [None, None]
    assert found.sweep is not None
    assert found.sweep.suggestion == "MLX_A=1"
    assert found.taken["split"].commit == "c" * 40
    assert all("s left" in note for note in notes)


def test_a_part_that_fails_costs_itself(root: Path) -> None:
    """No counter, a duel that cannot be had: two reasons, and the others stand."""

    def broken(arms: Sequence[str], seconds: float) -> Mapping[str, Judgement]:
        raise RuntimeError("something\nunforeseen")

    kept: list[WorkloadProfile] = []
    failing = profiler(root, "histogram", "trace", "sweep", made=tools(thread_times=None, compete=broken))
    found = failing.measure(kept.append)
    assert found.histogram is not None
    reasons = {one.part: one.reason for one in found.missing}
    assert reasons == {
        "trace": "no counter of this device is known",
        "sweep": "RuntimeError: something unforeseen",
    }
    assert [len(one.missing) for one in kept] == [0, 1, 1]
    assert not failing.invalid


def test_what_is_invalid_is_told_apart(root: Path) -> None:
    """Something that must not be used decides the exit code, not only the part."""

    def poisoned(arms: Sequence[str], seconds: float) -> Mapping[str, Judgement]:
        raise InvalidError("tokens differ")

    settings = (Setting.parse("MLX_A=1"),)
    found = profiler(root, "sweep", settings=settings, made=tools(compete=poisoned)).measure()
    assert found.sweep is not None
    assert found.sweep.knobs[0].reason == "tokens differ"
    broken = profiler(root, "histogram")
    broken.checkpoint.config["text_config"]["head_dim"] = 0
    try:
        lost = broken.measure()
    finally:
        broken.checkpoint.config["text_config"]["head_dim"] = 64
    assert [one.part for one in lost.missing] == ["histogram"]


def test_conditions_go_with_each_part(root: Path) -> None:
    """A busy machine is a caution beside the figure."""
    probe = fakes.FakeProbe([Conditions(steal=0.3)])
    made = tools(probe=probe, faults_of=lambda found: (Fault("steal", "30 %", "wait"),))
    found = profiler(root, "histogram", made=made).measure()
    assert found.taken["histogram"].faults == ("steal",)
    assert found.taken["histogram"].conditions.steal == 0.3


def test_metal_gives_no_number_and_says_how_to_look(root: Path) -> None:
    """A Mac without --metal-capture."""
    found = profiler(root, "trace", stack=replace(STACK, backend="metal")).measure()
    assert found.missing[0].part == "trace"
    assert "--metal-capture" in (found.missing[0].remedy or "")


def test_without_its_checkpoint_nothing_is_begun(tmp_path: Path) -> None:
    """Said at once, as an error of the whole."""
    with pytest.raises(CheckpointMissingError):
        profiler(tmp_path)
    assert issubclass(CheckpointMissingError, NotMeasuredError)


def test_a_budget_scales_every_part() -> None:
    """Half the time for each, in all what was asked for; a released size on a CPU takes the fewest tokens."""
    whole = time_plan("nvidia", "e2b-4bit", quick=True)
    half = time_plan("nvidia", "e2b-4bit", quick=True, budget_s=0.5 * sum(whole.seconds.values()))
    assert {part: round(2 * value, 6) for part, value in half.seconds.items()} == pytest.approx(whole.seconds)
    assert sum(whole.seconds.values()) <= 150
    assert sum(time_plan("nvidia", "e2b-4bit").seconds.values()) <= 360
    assert sum(time_plan("cpu", "nano").seconds.values()) <= 240
    assert time_plan("cpu", "e2b-4bit").tokens == 2
    assert set(whole.seconds) == set(PARTS)
    assert whole.knobs == 3


def test_rounds_end_when_the_next_would_not_fit() -> None:
    """Six rounds of a second each leave no room for a seventh in 6.5 seconds."""
    clock = fakes.FakeClock()
    enough = until(clock, 6.5)
    clock.passes(5.0)
    assert not enough(5)
    clock.passes(1.0)
    assert enough(6)
