"""What git cannot tell through the command: each in its own words, and exit 4, for nothing was judged."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.hardware.test_stack import git

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a clone of a repository that holds this package, without the history before its last commit."""
    whole = tmp_path / "whole"
    shutil.copytree(
        ROOT / "perf" / "gemma3n_perf", whole / "perf" / "gemma3n_perf", ignore=shutil.ignore_patterns("__pycache__")
    )
    git(whole, "init", "-q", "-b", "main")
    for name in ("first", "second"):
        (whole / "file").write_text(name)
        git(whole, "add", ".")
        git(whole, "commit", "-q", "-m", name)
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{whole}", "clone")
    return tmp_path / "clone"


def gate(clone: Path, base: str, environ: Mapping[str, str]) -> tuple[int, str]:
    """Run the gate in a clone; returns exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "gemma3n_perf", "gate", "--base", base, "--policy", "baselines/policy.toml"],
        env={**os.environ, "PYTHONPATH": str(clone / "perf"), **environ},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_a_shallow_clone(clone: Path) -> None:
    """Its parent commit may well be a commit."""
    code, said = gate(clone, "HEAD^", {})
    assert code == 4
    assert "--base HEAD^ is no commit of this clone, which is shallow: its history was cut off" in said
    assert "next: git fetch --unshallow --tags" in said
    assert gate(clone, "HEAD", {})[0] == 0


def test_no_git_on_the_path(clone: Path) -> None:
    """With what to install."""
    code, said = gate(clone, "HEAD", {"PATH": str(clone / "perf")})
    assert code == 4
    assert "git cannot be run: git: No such file or directory" in said
    assert "next: install git" in said


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="giving a folder away takes root")
def test_a_checkout_of_another_user(clone: Path, tmp_path: Path) -> None:
    """Not "no such commit"; what git asks for helps."""
    for path in (clone, clone / ".git"):
        os.chown(path, 65534, 65534)
    home = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    code, said = gate(clone, "HEAD", home)
    assert code == 4
    assert f"git refuses to read {clone}: it belongs to another user" in said
    remedy = said.partition("next: ")[2].split()[:6]
    subprocess.run(remedy, env=os.environ | home, check=True)
    assert gate(clone, "HEAD", home)[0] == 0
