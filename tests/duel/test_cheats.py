"""Fusions that would win without being faster, as real duels of nano."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.decode.fakes import nano_root

CHEATS = Path(__file__).parent / "cheats"
PERF = Path(__file__).parents[2] / "perf"
_NONE_FASTER = ("memo", "twob", "early", "slowbase", "clock", "session", "detect", "later", "placebo")
_WRONG = ("coarse", "headless", "shape")
"""Lower precision, half a head, and fast only where the benchmark decodes: each gives other logits."""
NAMES = (*_NONE_FASTER, *_WRONG)
INVALID = {
    "zz-clock": "time.perf_counter was replaced",
    "zz-session": "gemma3n_perf.decode.decoder.Decoder.run was replaced",
    **{f"zz-{name}": "logits of the arms|different greedy tokens" for name in ("detect", *_WRONG)},
}
"""Those that are named for what they do."""
HONEST = 0.02
"""How far an effect that is none may lie from 0."""

Found = dict[str, tuple[str, float | None, str]]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose ``perf`` holds this package with the cheats among its fusions."""
    folder = tmp_path_factory.mktemp("cheats")
    fusions = folder / "perf" / "gemma3n_perf" / "fusions"
    shutil.copytree(PERF / "gemma3n_perf", fusions.parent, ignore=shutil.ignore_patterns("__pycache__"))
    for name in NAMES:
        shutil.copy(CHEATS / f"zz_{name}.py", fusions)
    return folder


def compare(package: Path, root: Path, budget_s: float, memory: int, names: Sequence[str]) -> Found:
    """Return verdict, lower end of the interval, and reason of each fusion, from one duel."""
    options = [str(package / "lock"), str(root), str(budget_s), str(memory)]
    done = subprocess.run(
        [sys.executable, "-P", str(CHEATS / "compare.py"), *options, *names],
        env=os.environ | {"PYTHONPATH": str(package / "perf")}, capture_output=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    read: Found = json.loads(done.stdout)
    return read


@pytest.fixture(scope="module")
def found(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Compare all of them at once."""
    root = nano_root(tmp_path_factory.getbasetemp())
    return compare(package, root, 9, 0, [f"zz-{name}" for name in NAMES])


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


@pytest.mark.slow
def test_a_baseline_slowed_in_a_process_that_it_shares_is_invalid(
    package: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Where memory forces the arms into one: the cheat is found by a process without fusions, and an honest one is not
    taken for it."""
    root = nano_root(tmp_path_factory.getbasetemp())
    verdict, _, reason = compare(package, root, 20, 1, ["zz-slowbase"])["zz-slowbase"]
    assert verdict == "invalid", reason
    assert "it is slowed there" in reason
    verdict, _, reason = compare(package, root, 6, 1, ["stacked-altup"])["stacked-altup"]
    assert verdict != "invalid", reason
