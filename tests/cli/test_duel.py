import argparse
import io
from functools import partial
from pathlib import Path

import pytest

from gemma3n_perf import __main__ as program
from gemma3n_perf.cli import duel
from gemma3n_perf.duel import record as store
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.fitness import Doctor, Fitness
from gemma3n_perf.hardware.machine import open_machine
from gemma3n_perf.hardware.types import Conditions
from tests.duel.arena import Arena, noisy
from tests.duel.duels import NOW, asked, machine
from tests.fakes import WORKLOAD


def options(*arguments: str) -> argparse.Namespace:
    """Parse the command's arguments."""
    parser = argparse.ArgumentParser()
    duel.add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.mark.parametrize(("candidate", "code"), [("here+plant:+5%", 1), ("here+plant:-5%", 0), ("ref:x", 0)])
def test_the_exit_code_is_the_verdicts(tmp_path: Path, candidate: str, code: int) -> None:
    """And the report begins with the verdict."""
    here = machine(Arena(noisy(launch_sd=0.002)), tmp_path)
    answer = dueling.duel(asked(candidate=candidate), here, NOW)
    out = io.StringIO()
    assert duel.report_on(answer, here, tmp_path / "d.json", out) == code
    assert out.getvalue().startswith(store.DUELS.read(tmp_path / "d.json").verdict)


def test_the_default_workload_is_the_chips_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its checkpoint is forged where it is missing."""
    here, forged = machine(Arena(), tmp_path), list[str]()
    monkeypatch.setattr(dueling, "ensure_forged", lambda preset, root, note: forged.append(preset.name))
    assert dueling.choose_workloads([], None, here) == ((WORKLOAD,), {})
    assert forged == ["nano"]


def test_a_checkpoint_that_is_no_preset_needs_its_place(tmp_path: Path) -> None:
    """A name alone says nothing of where the bytes are."""
    here = machine(Arena(), tmp_path)
    (tmp_path / "mine").mkdir()
    ids, place = ["mine/text/pp40-tg64"], str(tmp_path / "mine")
    with pytest.raises(UsageError, match="no preset"):
        dueling.choose_workloads(ids, None, here)
    found = dueling.choose_workloads(ids, place, here)
    assert found == (("mine/text/pp40-tg64",), {"mine": place})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["here", "here"], "same arm twice"),
        (["here", "ref:no-such-branch"], "no commit of this clone"),
        (["here", "heer"], "not understood"),
        (["here", "here+plant:+2%", "--budget", "0"], "--budget 0"),
        (["here", "here+plant:+2%", "--explain", "--budget", "nan"], "--budget nan"),
        (["here", "here+plant:+2%", "--explain", "--margin", "0.1"], "below the minimum effect"),
        (["here", "here+plant:+2%", "--explain", "--sessions", "0"], "--sessions 0"),
        (["here", "here+plant:+2%", "--wait", "1e308"], "a week at most"),
        (["here", "here+plant:+2%", "--workload", "nano"], "not understood"),
        (["here", "fusion:none-yet"], "no fusion"),
        (["here", "here+plant:+2%", "--baselines", "/none"], "--baselines /none is no folder"),
        (["here", "here+plant:+2%", "--json", "/tmp"], "/tmp is a folder"),
    ],
)
def test_requests_that_cannot_be_carried_out_exit_2(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line, before any process is started."""
    monkeypatch.setattr(dueling, "open_machine", partial(open_machine, lock=tmp_path / "lock"))
    monkeypatch.setattr(Doctor, "look", lambda doctor: Fitness((), Conditions()))
    out, err = io.StringIO(), io.StringIO()
    assert program.run(["duel", *arguments], out, err) == 2
    assert said in err.getvalue()
    assert out.getvalue() == ""
