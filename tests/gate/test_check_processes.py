"""Checks in processes of their own: a real one over nano, and processes that end, hang or answer nonsense."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import PerfError
from gemma3n_perf.gate.checks import CheckProcesses, at_once
from gemma3n_perf.gate.facts import Checked
from gemma3n_perf.gate.session import CheckSpec
from tests import interrupts
from tests.decode import fakes
from tests.fakes import CHIP

WORKLOAD = "nano/text/pp40-tg64"


def checked(script: str, *specs: CheckSpec, limit_s: float = 60.0) -> list[Checked]:
    """Check with a process that runs ``script``."""
    return CheckProcesses(CHIP, Path(), argv=(sys.executable, "-c", script), limit_s=limit_s)(specs)


def test_a_fusion_is_checked_in_a_process_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two fusions, one of them off: the graph of each, in the order asked for."""
    notes: list[str] = []
    checks = CheckProcesses(CHIP, fakes.nano_root(tmp_path_factory.getbasetemp()), note=notes.append)
    off, knob = checks([CheckSpec("cuda-step", False, WORKLOAD), CheckSpec("ops-per-buffer", True, WORKLOAD)])
    assert off.dispatch is not None
    assert (off.dispatch.changed, off.parity) == ({}, None)
    assert knob.dispatch is not None
    assert knob.dispatch.knobs
    assert notes[-1].endswith("2 of 2")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended its process with SIGSEGV"),
        (
            "import sys; sys.exit('no such kernel')",
            "ended its process with exit code 1; its last output: no such kernel",
        ),
        ("print('[{]')", "answered what is no record"),
        (r"import sys; sys.stdout.buffer.write(b'[{\"checkpoint\": \"\xff\"')", "answered what is no record"),
        ("import time; time.sleep(60)", "did not end within 0.5 s"),
    ],
)
def test_a_fusion_that_breaks_its_process_has_its_answer(script: str, said: str) -> None:
    """For each of its checkpoints, and nobody else's."""
    specs = (CheckSpec("a", True, WORKLOAD), CheckSpec("a", True, "e2b-4bit/text/pp320-tg64"))
    limit_s = 0.5 if "sleep" in script else 60.0
    found = checked(script, *specs, limit_s=limit_s)
    assert [one.checkpoint for one in found] == ["nano", "e2b-4bit"]
    assert all(said in str(one.failure) for one in found), found


def test_a_checkpoint_at_fault_is_no_fusions_failure(tmp_path: Path) -> None:
    """It is raised by its own name, as everywhere, and no record blames the fusion."""
    missing = CheckSpec("compiled-geglu", True, "nowhere-to-be-found/text/pp40-tg64")
    with pytest.raises(PerfError, match="nowhere-to-be-found"):
        CheckProcesses(CHIP, tmp_path)([missing])


def test_last_words_name_nobodys_folders() -> None:
    """They are kept in records, which are committed."""
    (found,) = checked(f"import sys; sys.exit({str(Path.home() / 'secret.py')!r})", CheckSpec("a", True, WORKLOAD))
    assert str(found.failure).endswith("~/secret.py")


@pytest.mark.parametrize(
    ("cores", "gigabytes", "processes"), [(2, 25, 1), (16, 85, 5), (16, 150, 5), (32, 85, 5), (12, 24, 1), (8, None, 1)]
)
def test_as_many_at_once_as_there_is_room_for(cores: int, gigabytes: int | None, processes: int) -> None:
    """Cores and the device's memory both bound it, and there is always room for one."""
    chip = replace(CHIP, memory_bytes=None if gigabytes is None else gigabytes * 10**9)
    assert at_once(chip, cores) == processes


ASKING = """
import os, sys
from dataclasses import replace
from pathlib import Path
from gemma3n_perf.gate.checks import CheckProcesses
from gemma3n_perf.gate.session import CheckSpec
from tests.fakes import CHIP
os.cpu_count = lambda: 6
chip = replace(CHIP, memory_bytes=32 * 10**9)
specs = [CheckSpec(name, True, "nano/text/pp40-tg64") for name in "abcde"]
CheckProcesses(chip, Path(), argv=(sys.executable, "-c", sys.argv[1], sys.argv[2]))(specs)
"""
SLOW = """
import os, sys, time
from pathlib import Path
from gemma3n_perf.gate import checks
def slow(self, specs):
    Path(sys.argv[1], str(os.getpid())).touch()
    time.sleep(60)
checks.Checks.__call__ = slow
checks.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_checks_end_with_who_asked_for_them(tmp_path: Path, number: signal.Signals) -> None:
    """At once, by Ctrl-C and kill -9, whatever they are at; none of those that wait is started any more."""
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKING, SLOW, str(tmp_path)], cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE, text=True, preexec_fn=interrupts.heard,
    )  # fmt: skip
    assert interrupts.until(lambda: len(list(tmp_path.iterdir())) == 2 or asking.poll() is not None, 30)
    asking.send_signal(number)
    _, err = asking.communicate(timeout=5)
    assert asking.returncode == -number, err
    running = [int(path.name) for path in tmp_path.iterdir()]
    assert len(running) == 2
    assert interrupts.until(lambda: all(interrupts.ended(pid) for pid in running), 5), running
