"""What base and head are rebuilt from, and what is recorded where they cannot be compared."""

import datetime as dt
import io
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gemma3n_perf.bench import regression
from gemma3n_perf.bench.comparator import base_arm, comparators, pins
from gemma3n_perf.bench.regression import workloads_of
from gemma3n_perf.bench.regression_rule import judged
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.program import folder
from gemma3n_perf.errors import ArmUnavailableError, BadConditionsError, UsageError
from gemma3n_perf.gate.policy import ClassPolicy, GatePolicy, RegressionPolicy, read_policy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.machine import BusyPolicy, open_machine
from gemma3n_perf.stats.verdicts import Verdict
from tests.fakes import CHIP, STACK
from tests.gate.evidence_files import NANO, Scratch

ROOT = Path(__file__).parents[2]
LOCK = """
mlx=={mlx} \\
    --hash=sha256:aa
mlx-cpu=={mlx} ; sys_platform == 'linux' \\
    --hash=sha256:bb
mlx-vlm==0.7.10 \\
    --hash=sha256:cc
numpy==2.1 ; python_version < '3' \\
    --hash=sha256:dd
numpy==2.2 ; python_version >= '3' \\
    --hash=sha256:dd
{more}
ruff=={ruff} \\
    --hash=sha256:ee
"""


def locked(scratch: Scratch, mlx: str = "0.32.4", ruff: str = "0.15", more: str = "", name: str = "") -> str:
    """Commit a lock; returns the commit."""
    scratch.write(name or "requirements.lock", LOCK.format(mlx=mlx, ruff=ruff, more=more))
    return scratch.save(f"mlx {mlx}")


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return a repository without a lock yet."""
    return Scratch(tmp_path / "repo")


def test_the_base_has_the_packages_of_its_own_lock(scratch: Scratch) -> None:
    """Those that differ, by version; the backend follows mlx, and tools are none of the program."""
    base = locked(scratch, "0.32.0", ruff="0.14")
    locked(scratch, "0.32.4")
    arm = base_arm(Repository(scratch.root), base, "cpu-x", folder(scratch.root))
    assert arm == f"ref:{base}+mlx==0.32.0"
    assert (parse(arm).ref, parse(arm).version("mlx")) == (base, "0.32.0")
    assert base_arm(Repository(scratch.root), base, "nvidia-x", folder(scratch.root)) == f"ref:{base}"


def test_a_package_that_only_the_base_needs_is_installed_for_it(scratch: Scratch) -> None:
    """One that only head has does no harm."""
    base = locked(scratch, more="tqdm==4.67 \\")
    locked(scratch, more="regex==2026.1 \\")
    assert base_arm(Repository(scratch.root), base, "cpu-x", folder(scratch.root)) == f"ref:{base}+tqdm==4.67"


def test_a_package_from_an_address_cannot_be_rebuilt(scratch: Scratch) -> None:
    """It has no version to install again."""
    base = locked(scratch, more="transformers @ https://example.org/transformers.whl")
    locked(scratch, more="transformers==5.0")
    with pytest.raises(ArmUnavailableError, match="has transformers from an address"):
        base_arm(Repository(scratch.root), base, "cpu-x", folder(scratch.root))


def test_a_lock_that_changes_here_is_compared_with_the_packages_before_it(scratch: Scratch) -> None:
    """On a branch and in a tree with changes: a slower package is not compared with itself."""
    base, git = locked(scratch, "0.32.0"), Repository(scratch.root)
    scratch.write("requirements.lock", LOCK.format(mlx="0.32.4", ruff="0.15", more=""))
    (found,) = comparators(git, STACK, None, None, "cpu-x")
    assert (found.arm, found.origin) == (f"ref:{base}+mlx==0.32.0", "HEAD, without the changes in this tree")
    scratch.git("checkout", "--quiet", "-b", "bump")
    scratch.save("bump mlx")
    (found,) = comparators(git, STACK, None, None, "cpu-x")
    assert (found.arm, found.origin) == (f"ref:{base}+mlx==0.32.0", "the merge base with main")


def test_pins_are_those_of_this_platform(scratch: Scratch) -> None:
    """A package may have a line for each platform or Python."""
    locked(scratch)
    found = pins(folder(scratch.root), "cpu-x")
    expected = {"mlx": "0.32.4", "mlx-vlm": "0.7.10", "numpy": "2.2"}
    assert found == (expected | {"mlx-cpu": "0.32.4"} if sys.platform == "linux" else expected)


def test_workloads_are_the_policys_and_the_chips_own() -> None:
    """Each once."""
    policy = GatePolicy(("cpu-x",), {"cpu-x": ClassPolicy((NANO, "nano/text/pp41-tg64"))})
    found = workloads_of(policy, "cpu-x", "cpu")
    assert found[:2] == (NANO, "nano/text/pp41-tg64")
    assert len(set(found)) == len(found) > 2
    assert workloads_of(policy, "cpu-other", "cpu")[0] == NANO


class FakeMachine:
    """As much of a machine as is needed before anything is measured."""

    chip, stack = CHIP, STACK


@pytest.mark.parametrize(
    "error",
    [
        ArmUnavailableError("mlx 0.32.0 was withdrawn", remedy="rebase"),
        UsageError("mlx==0.32.0 does not exist", expected="a release"),
    ],
)
def test_a_base_that_cannot_be_rebuilt_is_recorded(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch, error: ArmUnavailableError
) -> None:
    """As not measured, with its reason: whoever proposed the change reads it."""

    def establish(*_: object) -> None:
        raise error

    monkeypatch.setattr(regression, "establish", establish)
    base = locked(scratch, "0.32.0")
    locked(scratch)
    policy = GatePolicy(("cpu-x",), {"cpu-x": ClassPolicy((NANO,))})
    found = regression.measure(base, (NANO,), policy, FakeMachine(), Repository(scratch.root))  # type: ignore[arg-type]
    assert found.failure is not None
    assert found.failure.verdict is Verdict.NOT_MEASURED
    assert error.found in found.failure.found
    assert found.arm == f"ref:{base}+mlx==0.32.0"
    assert json.loads(regression.REGRESSIONS.encode(found))["duel"] is None


def test_a_machine_that_is_not_fit_is_no_answer(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of the change, so the job fails and is run again."""

    def establish(*_: object) -> None:
        raise BadConditionsError("somebody builds here")

    monkeypatch.setattr(regression, "establish", establish)
    base = locked(scratch, "0.32.0")
    locked(scratch)
    policy = GatePolicy(("cpu-x",), {"cpu-x": ClassPolicy((NANO,))})
    with pytest.raises(BadConditionsError):
        regression.measure(base, (NANO,), policy, FakeMachine(), Repository(scratch.root))  # type: ignore[arg-type]


@pytest.mark.slow
def test_this_tree_is_compared_with_its_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real arms, a real duel: the record holds launches that give the same verdict when they are judged again."""
    if Repository(ROOT).commit() is None:
        pytest.skip("this is no clone")
    monkeypatch.setattr(dueling, "open_machine", partial(open_machine, lock=tmp_path / "lock"))
    policy = replace(read_policy(ROOT / "baselines" / "policy.toml"), regression=RegressionPolicy(budget=5.0))
    base = Repository(ROOT).commit() or ""
    with dueling.machine(ROOT / "baselines", io.StringIO(), BusyPolicy(allowed=True)) as here:
        # Other tests run beside this one: their load is no fault of a program.
        here = replace(here, tools=replace(here.tools, faults_of=lambda conditions: ()))
        dueling.choose_workloads((NANO,), None, here)
        found = regression.measure(base, (NANO,), policy, here, Repository(ROOT))
    assert found.failure is None, found.failure
    assert (found.base, found.head, found.arm.split("+")[0]) == (base, base, f"ref:{base}")
    path = regression.REGRESSIONS.write(tmp_path / "found.json", found)
    again = judged(regression.REGRESSIONS.read(path), policy, today=dt.datetime.now(dt.UTC).date(), floor=here.noise)
    assert found.duel is not None
    stated = {one.workload: one.judgement.verdict for one in found.duel.duels}
    assert {one.workload: one.judgement.verdict for one in again.compared if one.workload == NANO} == stated
    assert found.duel.launches >= 3
