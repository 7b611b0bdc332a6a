"""An upstream project gates its own pull requests: real revisions, environments and duels, on the tiny preset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rehearsal.upstream import git, repository

NANO = "nano/text/pp32-tg32"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of mlx-vlm."""
    return repository(tmp_path_factory.mktemp("upstream"))


def upstream(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command on one workload, on a machine that may be busy."""
    options = ["--workload", NANO, "--allow-busy", "--budget", "40"]
    command = [sys.executable, "-m", "gemma3n_perf", "upstream", *argv, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.slow
def test_a_branch_that_slows_decode_is_refused(clone: Path, tmp_path: Path) -> None:
    """With exit code 1, the file and the operations that do it, as a table and as Markdown."""
    answer = tmp_path / "answer.md"
    done = upstream("--clone", str(clone), "main", "slower", "--markdown", str(answer))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "loss: mlx-vlm at slower is" in done.stdout
    assert "mlx_vlm/models/gemma3n/language.py changed" in done.stdout
    text = answer.read_text()
    assert text.startswith("### Gemma3n decode: refused: loss (mlx-vlm ")
    assert "| **loss** |" in text
    assert "Reshape" in text


@pytest.mark.slow
def test_a_branch_that_is_as_fast_passes(clone: Path) -> None:
    """Another text of the same work is measured, and shown to be as fast."""
    done = upstream("--clone", str(clone), "main", "equal", "--json", "--margin", "3")
    judged = json.loads(done.stdout)["classes"][0]["compared"][0]["judgement"]
    found, busy = (done.returncode, judged["verdict"]), any(one["code"] == "busy" for one in judged["cautions"])
    # Beside other work it may not be told within the budget; it is never a loss.
    assert found in ((0, "no-change"), *([(3, "inconclusive")] if busy else [])), done.stdout[-2000:] + done.stderr


@pytest.mark.slow
def test_two_checkouts_that_load_one_program_are_not_timed(clone: Path, tmp_path: Path) -> None:
    """A page changed, and two folders are named instead of revisions."""
    for branch in ("main", "docs"):
        git(clone, "worktree", "add", "--quiet", "--detach", str(tmp_path / branch), branch)
    done = upstream(str(tmp_path / "main"), str(tmp_path / "docs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same program" in done.stdout


@pytest.mark.slow
def test_a_base_that_belongs_to_no_commit_is_refused(clone: Path, tmp_path: Path) -> None:
    """Nobody could compare with it again."""
    git(clone, "worktree", "add", "--quiet", "--detach", str(tmp_path / "changed"), "main")
    (tmp_path / "changed" / "new.py").touch()
    done = upstream(str(tmp_path / "changed"), str(clone))
    assert done.returncode == 2, done.stdout + done.stderr
    assert "which is no commit" in done.stderr


@pytest.mark.parametrize(
    ("argv", "found"),
    [
        (["nowhere", "neither"], "neither a folder nor a wheel"),
        (["--clone", ".", "no-such", "HEAD", "--package", "mlx-vlm"], "no-such is no commit of this clone"),
    ],
)
def test_what_cannot_be_compared_is_refused(argv: list[str], found: str) -> None:
    """Before the machine is waited for."""
    done = upstream(*argv)
    assert done.returncode == 2, done.stderr
    assert found in done.stderr
