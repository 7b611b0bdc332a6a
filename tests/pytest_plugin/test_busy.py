import pytest

from gemma3n_perf.hardware.fitness import Check, Doctor, Fitness, State
from gemma3n_perf.hardware.machine import BusyPolicy
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.session_file import decode
from tests.fakes import CHIP
from tests.pytest_plugin.stage import Stage

FOUND = "other processes used 99.0% of all cores (limit 10.0%): ninja (50) 198% of a core"


@pytest.fixture
def busy(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Return a stage whose machine is used by ninja."""
    check = Check("foreign-cpu", "other processes", State.UNFIT, FOUND, "stop it")
    monkeypatch.setattr(Doctor, "look", lambda doctor: Fitness((check,), Conditions()))
    return stage


def test_a_busy_machine_is_said_before_measuring(busy: Stage) -> None:
    """Exit 4, and no run was taken."""
    outcome = busy.run("--wait", "0")
    assert outcome.code == 4
    assert FOUND in outcome.text
    assert "--allow-busy to measure with a caution" in outcome.text
    assert (busy.script.taken, busy.local_files) == ([], [])


def test_a_busy_machine_may_be_allowed_and_the_session_says_so(busy: Stage) -> None:
    """On the screen and in the record, which is context for no later session."""
    outcome = busy.run("--allow-busy")
    assert outcome.code == 0
    assert f"measured on a busy machine: {FOUND}" in outcome.text
    (file,) = busy.local_files
    assert decode(file.read_bytes(), source="it").busy == f"measured on a busy machine: {FOUND}"
    assert Baselines.local(file.parent) is None
    assert file.parent.name == CHIP.chip_class


def test_a_session_on_an_idle_machine_says_nothing(stage: Stage) -> None:
    """Whatever was allowed."""
    outcome = stage.run("--allow-busy", "--wait", "5")
    assert (outcome.code, "busy machine" in outcome.text) == (0, False)
    assert decode(stage.local_files[0].read_bytes(), source="it").busy is None


@pytest.mark.parametrize("text", ["-1", "soon", "inf", "nan"])
def test_a_wait_is_seconds(stage: Stage, text: str) -> None:
    """Anything else is refused, exit 2."""
    outcome = stage.run("--wait", text)
    assert outcome.code == 2
    assert f"--wait {text}" in outcome.text


def test_whoever_measures_already_is_waited_for_from_the_start(stage: Stage) -> None:
    """What it is compared with is found out first; the same program needs no machine that is fit."""
    assert stage.run("--benchmark-compare", "--wait", "30").code == 0
    assert stage.script.busy == [BusyPolicy(30.0, watched=False), BusyPolicy(30.0)]
