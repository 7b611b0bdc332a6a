import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gemma3n_perf.hardware import apple, linux
from gemma3n_perf.hardware.system import mlx_accelerator, output_of, read_text, this_machine, time_fixed_work
from tests.decode.fakes import FakeClock
from tests.hardware.macs import Mac


def test_a_command_that_fails_is_missing_or_is_unknown_gives_nothing() -> None:
    """A reading that cannot be had is None, not an error."""
    assert output_of([sys.executable, "-c", "print('yes')"]) == "yes\n"
    assert output_of([sys.executable, "-c", "print('no'); raise SystemExit(1)"]) is None
    assert output_of(["no-such-command-anywhere"]) is None


def test_commands_do_not_see_the_repository_of_a_git_hook() -> None:
    """Under a hook, GIT_DIR names another repository than the one asked about."""
    shows = "import os; print('GIT_DIR' in os.environ, 'KEPT' in os.environ)"
    command = [sys.executable, "-c", shows]
    asks = f"from gemma3n_perf.hardware.system import output_of\nprint(output_of({command!r}))"
    environ = os.environ | {"GIT_DIR": "/elsewhere", "KEPT": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", asks], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_a_file_that_cannot_be_read_gives_nothing(tmp_path: Path) -> None:
    """A missing file and a folder are both unknown."""
    (tmp_path / "there").write_text("text")
    assert read_text(str(tmp_path / "there")) == "text"
    assert read_text(str(tmp_path / "missing")) is None
    assert read_text(str(tmp_path)) is None


def test_the_counters_of_this_machine_are_sane() -> None:
    """Idle and stolen time are parts of the whole, over at least one CPU."""
    times = this_machine().cpu_times()
    assert times is not None
    assert times.cpus >= 1
    assert 0 <= times.idle_s <= times.total_s
    assert times.steal_s is None or 0 <= times.steal_s <= times.total_s


def test_mlx_tells_its_device() -> None:
    """The backend is one of three, and the architecture is named."""
    accelerator = mlx_accelerator()
    assert accelerator.backend in {"metal", "cuda", "cpu"}
    assert accelerator.info["architecture"]


def test_a_psutil_that_does_not_know_this_system_costs_the_shares_of_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 7.2.2 on macOS 27, in its words (github.com/giampaolo/psutil, issue 2853): nothing asks it for memory, and
    counters that it could not read would be unknown."""

    def raises() -> None:
        raise RuntimeError("host_statistics64(HOST_VM_INFO64) syscall failed: (ipc/mig) array not large enough")

    monkeypatch.setattr(psutil, "cpu_times", raises)
    monkeypatch.setattr(psutil, "virtual_memory", raises)
    monkeypatch.setattr(psutil, "swap_memory", raises)
    assert this_machine().cpu_times() is None
    assert sys.platform != "linux" or linux.memory_bytes(this_machine())
    assert apple.free_memory_bytes(Mac().system) == 1_460_000 * 16_384


def test_a_fixed_computation_is_timed_on_the_default_device() -> None:
    """The best of three, on MLX itself; the clock is read around each."""
    clock = FakeClock(tick=0.5)
    assert time_fixed_work(clock, size=64) == 0.5
    assert clock.now == 100.0 + 6 * 0.5
    assert 0 < time_fixed_work(time.perf_counter, size=64) < 5


def test_this_machine_tells_no_states_of_a_gpu_that_is_not_apples() -> None:
    """No program is started for it."""
    assert sys.platform == "darwin" or this_machine().gpu_states() is None


def test_lines_and_numbers_of_files_and_commands(tmp_path: Path) -> None:
    """What is missing is empty, and no number."""
    system = this_machine()
    (tmp_path / "count").write_text(" 12\n")
    assert (system.line(str(tmp_path / "count")), system.number(str(tmp_path / "count"))) == ("12", 12)
    assert (system.line((sys.executable, "-c", "print(' x ')")), system.line("/nowhere")) == ("x", "")
    assert (system.number("/nowhere"), system.number((sys.executable, "-c", "print('x')"))) == (None, None)
