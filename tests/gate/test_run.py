import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pytest

from gemma3n_perf.duel import run as dueling
from gemma3n_perf.errors import NotComparableError
from gemma3n_perf.fusions.parity_rules import judge
from gemma3n_perf.fusions.stepwise import Step
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.checks import Checks, facts
from gemma3n_perf.gate.facts import Parity
from gemma3n_perf.gate.policy import read_policy
from gemma3n_perf.gate.run import run, spec_of, usual
from gemma3n_perf.workload.forge import is_forged
from gemma3n_perf.workload.presets import PRESETS
from tests.decode import fakes
from tests.duel.arena import Arena
from tests.duel.duels import machine as arena_machine
from tests.fakes import CHIP, WORKLOAD
from tests.gate.evidence_files import POLICY, SMALL

NAME = "compiled-step"


def same(plain: Any, fused: Any, forged: bool) -> Parity:
    """Stand in for the comparison of outputs."""
    return Parity(True, True)


@pytest.fixture
def here(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dueling.Here:
    """Return a machine on which every candidate takes 19 ms a token and the baseline 20, in an arena."""
    arena = Arena(lambda name, launch: 0.02 if name == "baseline" else 0.019)
    return replace(arena_machine(arena, tmp_path), root=fakes.nano_root(tmp_path_factory.getbasetemp()))


def gathered(here: dueling.Here, baselines: Path, *names: str, **options: Any) -> list[store.Evidence]:
    """Run a session there and read its records back."""

    @contextmanager
    def opened(folder: Path | None, err: TextIO) -> Iterator[dueling.Here]:
        yield here

    check = Checks(here.chip, here.root, same)
    kept = run(names, baselines, sys.stderr, check=check, machine=opened, **options)
    assert [path.name for _, path in kept] == [f"{name}.json" for name in names]
    return [store.read(path) for _, path in kept]


def test_a_session_writes_a_win_with_all_it_rests_on(here: dueling.Here, tmp_path: Path) -> None:
    """Real checks of a real fusion on nano; duels of two sessions in an arena."""
    (record,) = gathered(here, tmp_path, NAME, workloads=(WORKLOAD,), budget_s=60.0)
    assert record.verdict == "win", record.reason
    assert {launch.session for launch in record.workloads[0].raw} == {0, 1}
    assert record.workloads[0].judgement.effect == pytest.approx(0.02 / 0.019 - 1)
    assert record.workloads[0].budget_s == 60.0
    assert record.checked[0].dispatch is not None
    assert record.checked[0].dispatch.seen
    assert record.chip == CHIP


def test_a_session_that_is_cut_off_leaves_what_it_measured(here: dueling.Here, tmp_path: Path) -> None:
    """Interrupted in its fourth launch, it has a record of three, which no gate takes for a win."""
    arena = here.tools.probe
    assert isinstance(arena, Arena)

    def slower(name: str, launch: int) -> float:
        if launch == 3:
            raise KeyboardInterrupt
        return 0.02 if name == "baseline" else 0.019

    arena.tpot_s = slower
    with pytest.raises(KeyboardInterrupt):
        gathered(here, tmp_path, NAME, workloads=(WORKLOAD,), budget_s=60.0)
    record = store.read(store.path_of(tmp_path, CHIP.chip_class, NAME))
    assert len(record.workloads[0].raw) == 3
    assert record.verdict == "not-measured"
    assert "session" in record.reason


def test_what_another_attempt_replaces_is_kept_and_counted(here: dueling.Here, tmp_path: Path) -> None:
    """Once a session, however often it writes; a first attempt replaces nothing."""
    (first,) = gathered(here, tmp_path, NAME, workloads=(WORKLOAD,), budget_s=60.0)
    path = store.path_of(tmp_path, CHIP.chip_class, NAME)
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    (second,) = gathered(here, tmp_path, NAME, workloads=(WORKLOAD,), budget_s=60.0)
    (kept,) = (path.parent / "earlier").iterdir()
    assert (store.read(kept), store.read(path)) == (first, second)
    assert (first.attempts, second.attempts) == (1, 2)


def test_a_fusion_that_is_off_here_has_its_proof(here: dueling.Here, tmp_path: Path) -> None:
    """A knob for GPUs, on a CPU."""
    (record,) = gathered(here, tmp_path, "ops-per-buffer", workloads=(WORKLOAD,))
    assert not record.enabled
    assert record.workloads == ()
    assert "the decode graph is unchanged" in record.reason


def test_a_checkpoint_that_is_not_there_is_forged(here: dueling.Here, tmp_path: Path) -> None:
    """A machine that never measured needs nothing else."""
    fresh = replace(here, root=tmp_path / "fresh")
    gathered(fresh, tmp_path, "ops-per-buffer", workloads=(WORKLOAD,))
    assert is_forged(PRESETS["nano"], fresh.root)


def test_the_policys_workloads_are_the_usual_ones(here: dueling.Here, tmp_path: Path) -> None:
    """And elsewhere what suits the chip, one text for each checkpoint."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY.replace(SMALL, CHIP.chip_class))
    assert usual(read_policy(path), here.chip) == (WORKLOAD,)
    assert usual(None, here.chip) == (WORKLOAD,)
    assert usual(None, replace(CHIP, vendor="nvidia")) == ("e2b-4bit/text/pp320-tg64", "e4b-4bit/text/pp320-tg64")


def test_the_policy_says_how_long_and_by_which_rules(here: dueling.Here, tmp_path: Path) -> None:
    """Sessions lie as far apart as it says, and measuring stops by the rules that the gate will judge by."""
    own = POLICY.replace(SMALL, CHIP.chip_class).replace("[gate]", "[gate]\napart = 7\nsession_sd = 0.05")
    (tmp_path / "policy.toml").write_text(own)
    spec = spec_of(tmp_path, here.chip, budget_s=60.0)
    assert (spec.workloads, spec.each_s, spec.policy.apart) == ((WORKLOAD,), 60.0, 7)
    (record,) = gathered(here, tmp_path, NAME, budget_s=60.0)
    arena = here.tools.probe
    assert isinstance(arena, Arena)
    assert 7 in arena.slept
    # With sessions taken to lie 5 % apart, no 5 % is shown.
    assert record.verdict == "inconclusive", record.reason


def test_without_a_policy_the_usual_rules_hold(here: dueling.Here, tmp_path: Path) -> None:
    """Two sessions, 30 s apart, of a minute for each workload, of two where launches take longer."""
    spec = spec_of(tmp_path, here.chip)
    assert (spec.workloads, spec.each_s) == ((WORKLOAD,), 120.0)
    assert spec_of(tmp_path, replace(CHIP, vendor="nvidia")).each_s == 240.0
    assert (spec.policy.sessions, spec.policy.apart, spec.policy.session_sd) == (2, 30.0, 0.001)


def test_a_class_that_may_hold_several_variants_has_no_evidence(here: dueling.Here, tmp_path: Path) -> None:
    """It would stand for machines that were not measured."""
    unknown = replace(here, chip=replace(CHIP, chip_class="cpu-fake-unknown"))
    with pytest.raises(NotComparableError):
        gathered(unknown, tmp_path, NAME, workloads=(WORKLOAD,))
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("fused", "passed", "finite", "said"),
    [(0.0, True, True, ""), (3.0, False, True, "a logit is off by 3 at position 501"), (math.nan, False, False, "NaN")],
)
def test_parity_is_told_to_the_gate(fused: float, passed: bool, finite: bool, said: str) -> None:
    """Right, wrong beyond the window's edge, and NaN, with the figures as they were found."""
    exact = np.tile(np.array([1.0, 2.0, 9.0], np.float32), (4, 1))
    other = exact.copy()
    other[1, 0] += fused
    steps = [Step(500 + i, exact[i], other[i], 1e-4, 0.0, 1e-4) for i in range(4)]
    found = judge(
        steps, [], greedy={}, histories=(), forged=True, starts=(500,), perturbation=2.0**-20, own_type="float32",
        weights_changed=(), unfused_moved=0.0, memory_ratio=1.0, leaked_bytes=0,
    )  # fmt: skip
    parity = facts(found)
    assert (parity.passed, parity.finite) == (passed, finite)
    assert said in parity.reason
    assert list(parity.figures["starts"]) == [500]
