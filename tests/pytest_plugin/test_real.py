"""The plugin over real decodes of nano, each session in its own process: a first, a second, and an interrupted one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import interrupts
from tests.pytest_plugin.stage import CHECKOUT, Outcome, environment

WORKLOAD = "nano/text/pp4-tg4"
SMALL = ("--checkpoint", "nano", "--shape", "pp4-tg4", "--runs", "2")
CALM = (sys.executable, "-m", "pytest", "-p", "tests.pytest_plugin.calm", "-p", "no:cacheprovider", "perf/")
STARTS_WITHIN_S = 120


def session(folder: Path, *arguments: str, limit_s: float = 300) -> Outcome:
    """Run ``pytest perf/`` in the checkout, as a user would, with its files below ``folder``."""
    (folder / "baselines").mkdir(exist_ok=True)
    command = [*CALM, "--baselines", str(folder / "baselines"), *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=CHECKOUT, env=environment(folder), timeout=limit_s, check=False
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> list[Path]:
    """Return what was stored, whole or in part."""
    data = folder / "data"
    return sorted(path for path in data.rglob("*") if path.is_file()) if data.exists() else []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sessions of this module keep everything: no checkpoint is there yet."""
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="module")
def first(folder: Path) -> Outcome:
    """A first session on a machine that has neither checkpoint nor baseline, compared with this very tree."""
    return session(folder, *SMALL, "--benchmark-compare", "--against", "here")


@pytest.fixture(scope="module")
def stored(first: Outcome, folder: Path) -> Path:
    """The file that the first session left."""
    assert first.code == 0, first.out + first.err
    (path,) = files(folder)
    return path


@pytest.fixture(scope="module")
def second(stored: Path, folder: Path) -> Outcome:
    """Another session of the same code, with a planted slowdown."""
    return session(folder, *SMALL, "--benchmark-compare", "--plant-slowdown", "100%")


def test_first_session_forges_measures_and_answers(first: Outcome) -> None:
    """One command on a fresh machine: real tok/s of the runs that were requested, and a verdict."""
    assert first.code == 0, first.out + first.err
    assert first.closing == "1 workload: 1 no-change"
    assert f"{WORKLOAD}: no-change: the same program" in first.text
    assert "here (named with --against)" in first.text
    assert "Traceback" not in first.text


def test_first_session_leaves_a_whole_record(stored: Path) -> None:
    """Raw samples of both runs, graph, digests and bytes are in the file."""
    document = json.loads(stored.read_bytes())
    decodes = [one for one in document["benchmarks"] if one["name"] == f"test_decode[{WORKLOAD}]"]
    assert len(decodes) == 1
    kept = decodes[0]["extra_info"]["gemma3n_perf"]
    assert len(decodes[0]["stats"]["data"]) == 2
    assert [run["tokens"] for run in kept["runs"]] == [4, 4]
    assert decodes[0]["stats"]["data"] == pytest.approx([run["seconds"] / 4 for run in kept["runs"]])
    assert kept["graph"]["calls"]["quantized_matmul"] > 0
    assert min(kept["peak_memory_bytes"], kept["kv_bytes"], kept["streamed_bytes"], kept["copy_bandwidth"]) > 0
    assert stored.parent.name == document["machine_info"]["gemma3n_perf"]["chip"]["chip_class"]


def test_own_tool_of_pytest_benchmark_reads_the_record(stored: Path) -> None:
    """``pytest-benchmark compare`` lists the decode of the stored session."""
    command = [sys.executable, "-m", "pytest_benchmark", "--storage", f"file://{stored.parent.parent}", "compare"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=stored.parent, check=True)
    assert f"test_decode[{WORKLOAD}]" in done.stdout.replace("\n", "")
    assert "Failed to load" not in done.stdout + done.stderr


def test_a_planted_slowdown_is_found_on_a_machine_without_baseline(second: Outcome) -> None:
    """By a duel of this tree with and without it."""
    assert second.code == 1, second.out + second.err
    assert second.closing == "1 workload: 1 loss; TTFT: 1 loss [planted 100 %]"
    assert "change against here (this program without the planted slowdown)" in second.text


def test_planted_session_is_not_stored(second: Outcome, stored: Path, folder: Path) -> None:
    """The first session's file is still the only one."""
    assert "PLANTED SLOWDOWN of 100 %" in second.text
    assert files(folder) == [stored]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 2), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_stop_it_cleanly(stored: Path, folder: Path, number: signal.Signals, code: int) -> None:
    """One in the middle of the runs ends it with a code of its own, no traceback, and nothing half-written."""
    taken = folder / "a-run-was-taken"
    taken.unlink()
    command = [*CALM, "--baselines", str(folder / "baselines"), "--checkpoint", "nano", "--runs", "5000"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
        env=environment(folder),
        preexec_fn=interrupts.heard,
    )
    try:
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not taken.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert taken.exists(), out + err
    assert running.returncode == code
    assert "KeyboardInterrupt" in out
    assert code == 2 or f"ended by {number.name}" in err
    assert "Traceback" not in out + err
    assert "its benchmark did not finish" in out
    assert files(folder) == [stored]
    assert (folder / "lock").read_bytes() == b""
