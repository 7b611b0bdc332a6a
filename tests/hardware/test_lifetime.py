"""Real processes and real signals: what was started ends with who started it."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from gemma3n_perf.hardware import lifetime
from tests import interrupts

PACKAGE = str(Path(lifetime.__file__).parents[2])
CHILD = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from gemma3n_perf.hardware.lifetime import end_with
end_with(int(sys.argv[2]) or os.getppid())
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-S", "-c", *sys.argv[1:], "0"])
"""
SIGNALLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from gemma3n_perf.hardware.lifetime import ended_by_signals
with ended_by_signals():
    try:
        print("ready", flush=True)
        time.sleep(60 if sys.argv[2] == "long" else 0.5)
    finally:
        print("cleaned", flush=True)
"""


def started(code: str, *arguments: str, before: Callable[[], object] = interrupts.heard) -> subprocess.Popen[str]:
    """Start Python code that says when it is ready; standard output ends when all that inherited it have ended."""
    command = [sys.executable, "-S", "-c", code, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_ends_with_the_one_that_started_it(how: signal.Signals) -> None:
    """Killed, which no process can prepare for."""
    parent = started(PARENT, CHILD, PACKAGE)
    parent.send_signal(how)
    parent.communicate(timeout=5)  # the child has its standard output


def test_a_process_whose_parent_has_ended_already_ends_at_once() -> None:
    """It has another parent than it should."""
    command = [sys.executable, "-S", "-c", CHILD, PACKAGE, "999999999"]
    done = subprocess.run(command, capture_output=True, timeout=5, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_a_module_is_run_so_that_it_ends_with_a_process(tmp_path: Path) -> None:
    """As the main program, found in the working directory, with arguments of its own."""
    (tmp_path / "shown.py").write_text("import sys\nprint(__name__, sys.argv[1:])\nsys.exit(7)\n")
    done = subprocess.run(
        [sys.executable, "-m", "gemma3n_perf.hardware.lifetime", str(os.getpid()), "shown", "--option", "x"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": PACKAGE}, capture_output=True, text=True, timeout=10, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (7, "__main__ ['--option', 'x']\n"), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_process_that_cleans_up(number: signal.Signals) -> None:
    """With the exit code that a shell gives."""
    process = started(SIGNALLED, PACKAGE, "long")
    process.send_signal(number)
    out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (128 + number, "cleaned\n", "")


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As nohup has it."""
    process = started(SIGNALLED, PACKAGE, "short", before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=5) == ("cleaned\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize(("error", "kills"), [(None, 1), (ProcessLookupError(), 1), (PermissionError(), 0)])
def test_macos_is_asked_to_tell_of_the_end(monkeypatch: pytest.MonkeyPatch, error: OSError | None, kills: int) -> None:
    """Of the parent's, by kqueue; a parent that is gone already counts as one that ends."""
    asked, killed = list[object](), list[tuple[int, int]]()

    def control(events: list[object], most: int) -> list[object]:
        asked.append(events)
        if error:
            raise error
        return events

    for name in ("KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT"):
        monkeypatch.setattr(select, name, name, raising=False)
    monkeypatch.setattr(select, "kevent", lambda *what: what, raising=False)
    monkeypatch.setattr(select, "kqueue", lambda: SimpleNamespace(control=control), raising=False)
    monkeypatch.setattr(os, "kill", lambda *what: killed.append(what))
    lifetime._watch(41)
    assert asked == [[(41, "KQ_FILTER_PROC", "KQ_EV_ADD", "KQ_NOTE_EXIT")]]
    assert killed == [(os.getpid(), signal.SIGKILL)] * kills
