"""Fusions that would win without being faster, as real duels of nano."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHEATS = Path(__file__).parent / "cheats"
PERF = Path(__file__).parents[2] / "perf"
NAMES = ("memo", "twob", "early", "slowbase", "clock", "session", "detect", "later", "placebo")
INVALID = {
    "zz-clock": "time.perf_counter was replaced",
    "zz-session": "gemma3n_perf.decode.decoder.Decoder.run was replaced",
    "zz-detect": "logits of the arms|different greedy tokens",
}
"""Those that are named for what they do."""
HONEST = 0.02
"""How far an effect that is none may lie from 0."""

Found = dict[str, tuple[str, float | None, str]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return verdict, lower end of the interval, and reason of each, from one duel over a package that holds them."""
    from tests.decode.fakes import nano_root

    folder = tmp_path_factory.mktemp("cheats")
    root = nano_root(tmp_path_factory.getbasetemp())
    package = folder / "perf" / "gemma3n_perf"
    shutil.copytree(PERF / "gemma3n_perf", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in NAMES:
        shutil.copy(CHEATS / f"zz_{name}.py", package / "fusions")
    (folder / "run").mkdir()
    argv = [sys.executable, "-P", str(CHEATS / "compare.py"), str(folder / "run" / "lock"), str(root), "12"]
    done = subprocess.run(
        [*argv, *(f"zz-{name}" for name in NAMES)], env=os.environ | {"PYTHONPATH": str(folder / "perf")},
        capture_output=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    read: Found = json.loads(done.stdout)
    return read


@pytest.mark.parametrize("name", [f"zz-{name}" for name in NAMES])
def test_no_cheat_wins(found: Found, name: str) -> None:
    """It is invalid, or its effect is the honest one, which is none or less."""
    verdict, low, reason = found[name]
    assert verdict != "win", reason
    assert verdict == "invalid" or (low is not None and low < HONEST), (verdict, low, reason)


@pytest.mark.parametrize(("name", "reason"), INVALID.items())
def test_what_can_be_named_is_named(found: Found, name: str, reason: str) -> None:
    """With what it replaced, or what it puts out."""
    assert found[name][0] == "invalid"
    assert any(part in found[name][2] for part in reason.split("|"))


def test_what_does_nothing_is_valid(found: Found) -> None:
    """An innocent fusion beside cheats is judged as it is."""
    assert found["zz-placebo"][0] in ("no-change", "inconclusive", "loss")
