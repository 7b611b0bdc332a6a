import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import BadConditionsError, MachineBusyError
from gemma3n_perf.hardware import machine
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.fitness import LOOK_S, Doctor
from gemma3n_perf.hardware.lock import read_holder
from gemma3n_perf.hardware.machine import BusyPolicy, open_machine
from gemma3n_perf.hardware.types import Conditions
from tests.hardware import test_fitness
from tests.hardware.replay import Machine
from tests.hardware.test_lock import holder


class Terminal(io.StringIO):
    """A stream that shows progress."""

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return True


@contextmanager
def awake() -> Iterator[str]:
    """Keep nothing awake."""
    yield "kept awake by nobody"


def test_an_open_machine_is_locked_awake_and_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What measuring needs is at hand while the lock is held; the line of progress is wiped at the end."""
    monkeypatch.setattr(machine, "keep_awake", awake)
    err, path = Terminal(), tmp_path / "lock"
    with open_machine(err, lock=path) as opened:
        assert read_holder(path) is not None
        assert "kept awake by nobody" in err.getvalue()
        assert opened.chip == detect()
        opened.probe.start()
        assert isinstance(opened.probe.stop(), Conditions)
        assert [fault.code for fault in opened.faults_of(Conditions(steal=1.0))] == ["steal"]
        opened.note("a run")
        assert "a run" in err.getvalue()
    assert read_holder(path) is None
    assert err.getvalue().endswith("\r")


def test_a_machine_that_is_measured_is_not_opened(tmp_path: Path) -> None:
    """Nothing is shown, and nothing kept awake."""
    err, path = Terminal(), tmp_path / "lock"
    with holder(path), pytest.raises(MachineBusyError), open_machine(err, lock=path):
        pass
    assert err.getvalue() == ""


class Busy:
    """A machine whose CPU is used by ninja: the first ``looks`` times that somebody watches, or always."""

    def __init__(self, tmp_path: Path, looks: float = float("inf")) -> None:
        self.machine: Machine = test_fitness.linux()
        self.looks = looks
        self.waited_s = 0.0
        self.ticks = 0
        self.doctor = replace(test_fitness.doctor(self.machine, tmp_path), sleep=self.sleep)
        self.ninja()

    def ninja(self) -> None:
        """Write what the kernel says of it."""
        self.machine.files["/proc/50/stat"] = test_fitness.stat(50, "ninja", 1, self.ticks)

    def sleep(self, seconds: float) -> None:
        """Let time pass: a second while it is watched, more while it is waited for."""
        watched = seconds == LOOK_S
        self.looks -= watched
        self.waited_s += seconds
        used = 0.9 * seconds if watched and self.looks >= 0 else 0.0
        self.ticks += round(100 * used)
        self.ninja()
        self.machine.passes(seconds, foreign=used)


def opened(busy: Busy, policy: BusyPolicy, err: io.StringIO, patch: pytest.MonkeyPatch, lock: Path) -> machine.Machine:
    """Open a busy machine, close it and return what was open."""
    patch.setattr(machine, "keep_awake", awake)
    patch.setattr(Doctor, "here", lambda folder, needs: busy.doctor)
    with open_machine(err, policy, lock=lock) as found:
        return found


def test_a_busy_machine_is_refused_by_name_after_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says who uses it; nothing is said before."""
    busy, err = Busy(tmp_path), io.StringIO()
    with pytest.raises(BadConditionsError) as caught:
        opened(busy, BusyPolicy(), err, monkeypatch, tmp_path / "lock")
    assert caught.value.found == (
        "this machine is not fit to measure: other processes used 44.5% of all cores (limit 10.0%): "
        "ninja (50) 90% of a core"
    )
    assert "--wait 300 until it is fit, or --allow-busy" in str(caught.value.remedy)
    assert busy.waited_s == pytest.approx(10 + LOOK_S, abs=0.5)
    assert (err.getvalue(), read_holder(tmp_path / "lock")) == ("", None)


def test_a_machine_that_was_busy_for_a_moment_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing said of it: no run has suffered."""
    busy, err = Busy(tmp_path, looks=1), io.StringIO()
    found = opened(busy, BusyPolicy(), err, monkeypatch, tmp_path / "lock")
    assert (found.busy, err.getvalue()) == (None, "")
    assert [fault.code for fault in found.faults_of(Conditions(foreign_cpu=1.0))] == ["foreign-cpu"]


def test_waiting_is_said_in_one_line_and_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as it is fit; a terminal shows how long it may still take."""
    for err in (io.StringIO(), Terminal()):
        busy = Busy(tmp_path, looks=3)
        found = opened(busy, BusyPolicy(wait_s=600), err, monkeypatch, tmp_path / "lock")
        assert found.busy is None
        said = err.getvalue().replace("\r", "\n").split("\n")
        assert sum("waiting up to 600 s: other processes used 44.5%" in line for line in said) == 1
        assert len([line for line in said if "s left: other processes" in line]) == (3 if err.isatty() else 0)
        assert busy.waited_s == pytest.approx(5 + 10 + 20 + 4 * LOOK_S)


def test_waiting_ends_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine never becomes fit; a wait of nothing looks once."""
    for wait_s, waited_s in ((60, 60), (0, 0)):
        busy = Busy(tmp_path)
        with pytest.raises(BadConditionsError, match="ninja"):
            opened(busy, BusyPolicy(wait_s), io.StringIO(), monkeypatch, tmp_path / "lock")
        assert busy.waited_s == pytest.approx(waited_s + LOOK_S, abs=0.5)


def test_a_busy_machine_may_be_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, said before measuring; what it suffered from then discards no run, whatever else happens still does."""
    busy, err = Busy(tmp_path), io.StringIO()
    found = opened(busy, BusyPolicy(allowed=True), err, monkeypatch, tmp_path / "lock")
    assert busy.waited_s == LOOK_S
    assert err.getvalue().startswith("measuring on a busy machine (--allow-busy): other processes used 44.5%")
    assert found.busy is not None
    assert (found.busy.code, "ninja (50)" in found.busy.found) == ("busy", True)
    assert [fault.code for fault in found.faults_of(Conditions(foreign_cpu=1.0, steal=1.0))] == ["steal"]


def test_a_machine_that_is_not_watched_need_not_be_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is free, which is all that is asked."""
    busy, err = Busy(tmp_path), io.StringIO()
    found = opened(busy, BusyPolicy(watched=False), err, monkeypatch, tmp_path / "lock")
    assert (found.busy, busy.waited_s, err.getvalue()) == (None, 0, "")


def test_a_machine_that_is_measured_may_be_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same option waits for its lock, names the holder, and goes on when that has ended."""
    path, err = tmp_path / "lock", io.StringIO()
    idle = Busy(tmp_path, looks=0)
    with holder(path) as process:
        threading.Timer(1.5, process.kill).start()
        found = opened(idle, BusyPolicy(wait_s=30), err, monkeypatch, path)
    assert found.busy is None
    assert err.getvalue().count("\n") == 1
    assert err.getvalue().startswith(f"waiting up to 30 s: this machine is being measured by process {process.pid} ")


def test_a_measured_machine_is_refused_after_the_wait_busy_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two measurements at once are never allowed."""
    path = tmp_path / "lock"
    with holder(path), pytest.raises(MachineBusyError, match="being measured by"):
        opened(Busy(tmp_path), BusyPolicy(wait_s=1, allowed=True), io.StringIO(), monkeypatch, path)
