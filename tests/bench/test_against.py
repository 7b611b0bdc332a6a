from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.bench import against
from gemma3n_perf.bench.against import BUDGET_S, CompareRequest, compare, establish
from gemma3n_perf.bench.comparator import Comparator
from gemma3n_perf.bench.comparison import Exact
from gemma3n_perf.duel import graphs, programs
from gemma3n_perf.errors import CheckpointMissingError, InvalidError, NoBaselineError, PerfError, WorkerFailedError
from gemma3n_perf.stats.verdicts import Verdict
from tests.duel.arena import Arena, noisy
from tests.duel.duels import FakeBuilder, machine
from tests.fakes import WORKLOAD

OLD, OLDER = Comparator("ref:old", "the baseline"), Comparator("ref:older", "the parent commit")
REQUEST = CompareRequest((WORKLOAD,))


@pytest.fixture(autouse=True)
def _history(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two comparators, whose checkouts declare the same program as this one."""
    monkeypatch.setattr(against, "comparators", lambda *arguments: (OLD, OLDER))
    monkeypatch.setattr(programs, "declared", lambda *arguments: {"source duel/worker.py": "1"})


def test_the_same_program_is_found_by_two_workers(tmp_path: Path) -> None:
    """That have decoded; with --measure-anyway it is compared all the same."""
    found = establish(REQUEST, machine(Arena(), tmp_path), None)
    assert (found.chosen.comparator, found.is_same, found.changes) == (OLD, True, ())
    forced = establish(CompareRequest((WORKLOAD,), measure_anyway=True), machine(Arena(), tmp_path), None)
    assert (forced.is_same, forced.changes) == (False, ())


def test_other_programs_differ_by_name(tmp_path: Path) -> None:
    """What is installed says what differs."""
    arena = Arena(programs={"candidate": {"python": "3.11", "source decode/decoder.py": "2"}})
    found = establish(REQUEST, machine(arena, tmp_path), None)
    assert (found.is_same, found.changes) == (False, ("decode/decoder.py is new",))


@pytest.mark.parametrize("error", [CheckpointMissingError("nano-v1 is not forged"), WorkerFailedError("it crashed")])
def test_a_commit_that_cannot_decode_this_is_passed_over(tmp_path: Path, error: PerfError) -> None:
    """Named with the reason; where no other is left there is nothing to compare with. One that was named stays."""
    here = machine(Arena(raises={("baseline", "load"): error}), tmp_path)
    with pytest.raises(NoBaselineError, match=r"it cannot be compared: .*; ref:older"):
        establish(REQUEST, here, None)
    with pytest.raises(type(error)):
        establish(CompareRequest((WORKLOAD,), against="ref:old"), here, None)


def test_what_is_wrong_with_this_tree_is_left_to_its_measurement(tmp_path: Path) -> None:
    """It is never the same program then, and no other comparator would help."""
    here = machine(Arena(raises={("candidate", "prepare"): InvalidError("NaN")}), tmp_path)
    found = establish(REQUEST, here, None)
    assert (found.chosen.comparator, found.is_same) == (OLD, False)


def test_a_planted_slowdown_is_duelled_with_this_tree(tmp_path: Path) -> None:
    """With and without it, whatever history there is; and the duel finds it."""
    request = CompareRequest((WORKLOAD,), planted=0.25)
    here = machine(Arena(noisy(launch_sd=1e-3, block_sd=1e-3)), tmp_path)
    found = establish(request, here, None)
    assert not found.is_same
    result = compare(found, request, here, [WORKLOAD])
    assert isinstance(here.builder, FakeBuilder)
    assert here.builder.asked[-1] == ("here", "here+plant:+25%", None)
    assert result.judgements[WORKLOAD].verdict is Verdict.LOSS


@pytest.mark.parametrize(("total", "each"), [(None, BUDGET_S), (30.0, 10.5), (1000.0, BUDGET_S)])
def test_a_time_budget_bounds_the_duel(total: float | None, each: float) -> None:
    """Shared by the workloads, with something left for all the rest."""
    assert CompareRequest((WORKLOAD, "nano/text/pp4-tg4"), time_budget=total).budget_s("cpu") == pytest.approx(each)


def test_graphs_of_one_program_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor where the other code cannot count."""

    def count(*arguments: Any) -> None:
        counted.append(arguments[1:])

    counted: list[Any] = []
    monkeypatch.setattr(graphs, "count", count)
    same = establish(REQUEST, machine(Arena(), tmp_path), None)
    assert same.exact(None, "nano", 44) == Exact()  # type: ignore[arg-type]
    assert counted == []
    arena = Arena(programs={"candidate": {}})
    assert establish(REQUEST, machine(arena, tmp_path), None).exact(None, "nano", 44) == Exact()  # type: ignore[arg-type]
    assert counted == [("nano", 44)]
