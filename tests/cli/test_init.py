import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.bench.recording import Recorder
from gemma3n_perf.cli.init import carry_out
from gemma3n_perf.errors import NotComparableError, NotMeasuredError, UsageError
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.store.baselines import Baselines
from tests.fakes import CHIP, STACK, write_session

CLASS = CHIP.chip_class


def recorder(data: Path, chip: Chip = CHIP) -> Recorder:
    """Return what records a session of ``chip`` each time."""

    def run(command: Sequence[str]) -> int:
        count = len(list((data / "sessions").glob("*/*.json"))) + 1
        write_session(data / "sessions" / chip.chip_class, count, chip=chip)
        return 0

    return Recorder(run, Path("perf"), data)


def test_a_machine_gets_its_class_and_its_first_baseline(tmp_path: Path) -> None:
    """From nothing; and again, it changes nothing."""
    out, baselines = io.StringIO(), tmp_path / "baselines"
    assert carry_out(CHIP, STACK, baselines, out, recorder(tmp_path)) == 0
    assert read_policy(baselines / POLICY_FILE).required == (CLASS,)
    assert len(Baselines(baselines).require(CLASS).sessions) == 5
    said = out.getvalue()
    assert f"{CLASS} has a baseline of 5 sessions" in said
    assert "--labels linux," in said
    before = {path: path.read_bytes() for path in baselines.rglob("*") if path.is_file()}
    out = io.StringIO()
    assert carry_out(CHIP, STACK, baselines, out, recorder(tmp_path)) == 0
    assert "as it should be" in out.getvalue()
    assert "baseline: 5 sessions, kept" in out.getvalue()
    assert {path: path.read_bytes() for path in baselines.rglob("*") if path.is_file()} == before


def test_a_first_baseline_may_be_one_session(tmp_path: Path) -> None:
    """Where somebody says so."""
    carry_out(CHIP, STACK, tmp_path, io.StringIO(), recorder(tmp_path), sessions=1)
    assert len(Baselines(tmp_path).require(CLASS).sessions) == 1


def test_changes_are_not_measured_as_a_commit(tmp_path: Path) -> None:
    """Five sessions that could be no baseline are not started; the policy is written, and kept."""
    out = io.StringIO()
    with pytest.raises(UsageError, match="--no-baseline"):
        carry_out(CHIP, replace(STACK, dirty=True), tmp_path, out, recorder(tmp_path))
    assert not (tmp_path / "sessions").exists()
    assert carry_out(CHIP, replace(STACK, dirty=True), tmp_path, out, None) == 0
    assert "no baseline yet" in out.getvalue()


def test_sessions_of_another_class_are_no_baseline_of_this_one(tmp_path: Path) -> None:
    """As where a driver was set otherwise meanwhile."""
    other = replace(CHIP, chip_class="fake-other")
    with pytest.raises(NotMeasuredError, match="no session of"):
        carry_out(CHIP, STACK, tmp_path, io.StringIO(), recorder(tmp_path, other))


def test_a_class_that_may_hold_several_variants_is_none(tmp_path: Path) -> None:
    """Nothing is written for it."""
    with pytest.raises(NotComparableError):
        carry_out(
            replace(CHIP, chip_class="apple-m1-ultra-gpu-unknown"), STACK, tmp_path, io.StringIO(), recorder(tmp_path)
        )
    assert not (tmp_path / POLICY_FILE).exists()


def test_a_policy_with_a_fault_is_left_as_it_is(tmp_path: Path) -> None:
    """And named by its file."""
    (tmp_path / POLICY_FILE).write_text("[gate\n")
    with pytest.raises(UsageError, match=r"policy\.toml"):
        carry_out(CHIP, STACK, tmp_path, io.StringIO(), recorder(tmp_path))
    assert (tmp_path / POLICY_FILE).read_text() == "[gate\n"
