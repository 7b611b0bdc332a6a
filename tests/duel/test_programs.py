from dataclasses import replace
from typing import Any

import pytest

from gemma3n_perf.duel import programs
from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.duel.programs import ArmProgram, changes, inspect, require_same_work, same_program
from gemma3n_perf.duel.tools import Job
from gemma3n_perf.errors import NotComparableError
from tests.duel.arena import LOADED, Arena, arm

JOBS = [Job(f"nano/{name}", "nano", "/root") for name in ("text/pp40-tg64", "text/pp140-tg64", "image/pp296-tg64")]
DECLARED = {"source duel/worker.py": "1"}
INSTALLED = {"package mlx": "0.32.4 abc", "source decode/decoder.py": "1"}
HERE = ArmProgram(arm("candidate"), DECLARED, INSTALLED, {"nano/text/pp40-tg64": (LOADED, "tokens:1")})
THERE = replace(HERE, arm=arm("baseline", "ref:x"))


def test_two_arms_that_agree_in_every_part_are_one_program() -> None:
    """Whatever commit they are of."""
    assert same_program(THERE, HERE)
    assert changes(THERE, HERE) == ()


@pytest.mark.parametrize(
    "change",
    [
        {"declared": {"source duel/worker.py": "2"}},
        {"declared": None},
        {"installed": INSTALLED | {"package mlx": "0.32.5 abc"}},
        {"installed": None},
        {"replies": {"nano/text/pp40-tg64": (LOADED, "tokens:2")}},
        {"arm": arm("candidate", planted=0.02)},
        {"arm": replace(arm("candidate"), engine="mlx_lm")},
        {"arm": replace(arm("candidate"), fusions=("x",))},
        {"arm": replace(arm("candidate"), environ={"MLX_A": "1"})},
    ],
)
def test_one_difference_makes_two_programs(change: dict[str, Any]) -> None:
    """And so does a part that could not be told; a planted slowdown is never the same."""
    assert not same_program(THERE, replace(HERE, **change))
    assert not same_program(replace(HERE, **change), THERE)


def test_what_is_installed_says_what_differs_before_what_is_declared() -> None:
    """The declared parts stand in where a worker is too old to say."""
    other = replace(HERE, declared={}, installed=INSTALLED | {"source decode/decoder.py": "2"})
    assert changes(THERE, other) == ("decode/decoder.py changed",)
    assert changes(replace(THERE, installed=None), other) == ("duel/worker.py is gone",)
    assert changes(replace(THERE, installed=None, declared=None), other) == ()


def test_an_arm_is_inspected_after_it_has_decoded() -> None:
    """One workload of each modality is loaded, prepared and decoded, in a process that is then ended."""
    arena = Arena(programs={"baseline": INSTALLED})
    found = inspect(arm("baseline"), DECLARED, JOBS, arena.tools)
    assert (found.declared, found.installed) == (DECLARED, INSTALLED)
    assert set(found.replies) == {"nano/text/pp40-tg64", "nano/image/pp296-tg64"}
    (worker,) = arena.workers
    kinds = [type(one) for one in worker.asked]
    assert kinds == [wire.Load, wire.Prepare, wire.Block, wire.Load, wire.Prepare, wire.Block, wire.Describe]
    assert worker.closed
    assert worker.asked[-1] == wire.Describe({"nano": "forged:1"})


def test_each_engine_of_a_workload_is_inspected() -> None:
    """It imports other files. The worker is sent the same work, and who is to do it."""
    arena, engine = Arena(), Job("nano/text/pp40-tg64@mlx_lm", "nano", "/root")
    assert set(inspect(arm("baseline"), DECLARED, [*JOBS, engine], arena.tools).replies) == {
        "nano/text/pp40-tg64", "nano/image/pp296-tg64", "nano/text/pp40-tg64@mlx_lm",
    }  # fmt: skip
    loads = [one for one in arena.workers[0].asked if isinstance(one, wire.Load)]
    assert sorted((one.workload, one.engine) for one in loads) == [
        ("nano/image/pp296-tg64", "mlx_vlm"), ("nano/text/pp40-tg64", "mlx_lm"), ("nano/text/pp40-tg64", "mlx_vlm"),
    ]  # fmt: skip


def test_an_old_worker_cannot_say_what_it_is() -> None:
    """It is not asked."""
    found = inspect(arm("baseline"), DECLARED, JOBS, Arena(protocols={"baseline": programs.DESCRIBES - 1}).tools)
    assert found.installed is None


def test_other_prompts_are_not_compared() -> None:
    """A commit that makes another prompt of the workload is named by what differs."""
    require_same_work(THERE, HERE)
    other = wire.Loaded("forged:1", "prompt:2", 40, 64, None)
    with pytest.raises(NotComparableError, match="prompt digest of nano/text/pp40-tg64"):
        require_same_work(THERE, replace(HERE, replies={"nano/text/pp40-tg64": (other, "tokens:1")}))
