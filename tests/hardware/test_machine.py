import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gemma3n_perf.errors import MachineBusyError
from gemma3n_perf.hardware import machine
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.lock import read_holder
from gemma3n_perf.hardware.machine import open_machine
from gemma3n_perf.hardware.types import Conditions
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
