"""Exit codes through the command line, whatever the world does: 1 is a loss, or a count that rose, and nothing else."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pytest_plugin.stage import CHECKOUT, environment

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.pytest_plugin.calm", "perf/")
COUNTS = ("-k", "graph and pp40", "--checkpoint", "nano")
"""The cheapest that measures anything: counts, without weights."""


def shell(redirection: str, folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in the checkout as a shell would; a pipe has the exit code of its first."""
    (folder / "baselines").mkdir(exist_ok=True)
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirection}; exit ${{PIPESTATUS[0]}}', "bash", *command],
        capture_output=True, text=True, cwd=CHECKOUT, env=environment(folder) | more, timeout=240, check=False,
    )  # fmt: skip


def session(folder: Path, redirection: str, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run ``pytest perf/`` with its files below ``folder``."""
    return shell(redirection, folder, *PYTEST, "--baselines", str(folder / "baselines"), *options, **more)


@pytest.mark.parametrize(
    ("redirection", "options", "code", "said"),
    [
        ("", ("-p", "no:benchmark", "--co"), 2, "pytest-benchmark is switched off"),
        ("", ("no-such-folder",), 2, "file or directory not found: no-such-folder"),
        ("", ("no\x1b]0;owned\x07such",), 2, "file or directory not found: no\\u001b]0;owned\\u0007such"),
        ("> /dev/full", ("--co",), 4, "standard output cannot be written: No space left on device"),
        ("> /dev/full", ("--co", "--modality", "smell"), 2, "--modality smell"),
        ("| head -1", ("--co",), 0, ""),
        (">&-", ("--co",), 0, ""),
        ("", (*COUNTS, "-p", "tests.pytest_plugin.broken"), 70, "a hook that fails"),
    ],
)
def test_what_is_no_loss_never_exits_1(
    tmp_path: Path, redirection: str, options: tuple[str, ...], code: int, said: str
) -> None:
    """Streams that cannot be written, readers that leave, plugins that are off or broken, requests that are wrong."""
    done = session(tmp_path, redirection, *options)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert ("Traceback" in done.stdout + done.stderr) == (code == 70)
    assert "INTERNALERROR" not in done.stdout or code == 70


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a small mount takes root on Linux")
def test_a_full_temporary_folder_changes_no_count(tmp_path: Path) -> None:
    """MLX says nothing when a graph that it writes does not fit; half of one would make the other side's a rise."""
    fill = f"mount -t tmpfs -o size=64k none {tmp_path} && head -c 56k /dev/zero > {tmp_path}/filler"
    graph = f"TMPDIR={tmp_path} {sys.executable} -m gemma3n_perf graph nano --json"
    done = shell("", tmp_path, "unshare", "-m", "bash", "-c", f"{fill} && {graph}")
    if "unshare" in done.stderr or "mount" in done.stderr:
        pytest.skip("this user may not mount")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["nodes"] > 1000


def test_a_full_disk_is_not_measured(tmp_path: Path) -> None:
    """No file may be written: exit 4 with what is full and where."""
    limited = f"ulimit -f 0; {sys.executable} -m gemma3n_perf forge nano --root {tmp_path / 'forged'} 2>&1 | cat"
    done = shell("", tmp_path, "bash", "-c", f"{limited}; exit ${{PIPESTATUS[0]}}")
    assert done.returncode == 4, done.stdout
    assert "no room" in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="a read-only mount takes root on Linux")
def test_a_checkout_that_cannot_be_written_is_measured_all_the_same(tmp_path: Path) -> None:
    """Nothing is written there: today's runs are taken, stored in the user's folder, and exit 0."""
    remount = f"mount --bind {CHECKOUT} {CHECKOUT} && mount -o remount,ro,bind {CHECKOUT} && cd {CHECKOUT}"
    options = ("--checkpoint", "nano", "--shape", "pp4-tg4", "--runs", "2", "-k", "decode")
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", f'{remount} && exec "$@"', "bash", *PYTEST, *options],
        capture_output=True, text=True, env=environment(tmp_path), timeout=240, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip("this user may not unshare mounts")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "data").rglob("*.json"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("redirection", ["> /dev/full", "| head -1"])
def test_a_loss_is_stored_before_it_is_printed(tmp_path: Path, redirection: str) -> None:
    """Where standard output has ASCII alone and takes nothing, the record is whole and a loss exits 1."""
    record = tmp_path / "duel.json"
    options = ["--budget", "4", "--workload", "nano/text/pp4-tg4", "--allow-busy", "--json", str(record)]
    program = "import tests.pytest_plugin.calm, gemma3n_perf.__main__ as program; program.main()"
    command = (sys.executable, "-c", program, "duel", "here", "here+plant:+100%", *options)
    done = shell(redirection, tmp_path, *command, PYTHONIOENCODING="ascii")
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(record.read_bytes())["verdict"] == "loss"
