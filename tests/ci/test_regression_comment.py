"""Base against head, from the artifacts of measuring jobs to the comment and the exit code."""

import io
import json
from pathlib import Path

import pytest

from gemma3n_perf.bench.regression import REGRESSIONS, Regression
from gemma3n_perf.ci.artifacts import COMPARISON
from gemma3n_perf.ci.comment import Comment, judged
from gemma3n_perf.ci.plan import ChipClass, Plan, Pull, State
from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.gate.change import FUSIONS
from tests.bench.regressions import failed, record
from tests.gate.evidence_files import BIG, NANO, ONE, POLICY, SMALL, TWO, Scratch
from tests.rehearsal import github

WORKER = "perf/gemma3n_perf/duel/worker.py"
WORKLOADS = {BIG: (ONE, TWO), SMALL: (NANO,)}


class Change:
    """A pull request that changes the worker, and what each class says of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scratch = Scratch(folder / "repo")
        self.scratch.write(WORKER, "import time\n")
        self.base = self.scratch.save("base")
        self.scratch.write(WORKER, "import os\n")
        self.head = self.scratch.save("change")
        self.ends: dict[str, str | None] = {}

    def says(self, chip_class: str, effect: float = 0.0, found: Regression | None = None) -> None:
        """Pack what a class's job sends: its comparison, by default one with this effect on all its workloads."""
        effects = dict.fromkeys(WORKLOADS[chip_class], effect)
        made = found or record(chip_class, self.base, self.head, effects, changes=("duel/worker.py changed",))
        path = self.folder / chip_class / COMPARISON
        path.parent.mkdir()
        REGRESSIONS.write(path, made)
        github.pack(self.folder / "in", chip_class, self.head, [], comparison=path)
        self.ends[chip_class] = "success"

    def comment(self) -> Comment:
        """Judge it."""
        policy = self.folder / "policy.toml"
        policy.write_text(POLICY.replace(f'workloads = ["{NANO}"]', f'workloads = ["{NANO}"]\nrunner = ["cpu"]'))
        pull = Pull(7, self.head, self.base, "us/suite", "us/suite", "colleague")
        classes = tuple(ChipClass(name, ("x",), True) for name in (BIG, SMALL))
        plan = Plan(State.MEASURE, pull, "it changed", classes=classes, programs=(BIG, SMALL))
        return judged(
            plan, {}, self.scratch.checkout(), io.StringIO(), artifacts=self.folder / "in", policy=policy,
            jobs=github.jobs(self.folder / "jobs.json", self.ends), run_id=github.RUN_ID, out=self.folder / "out",
        )  # fmt: skip


@pytest.fixture
def change(tmp_path: Path) -> Change:
    """Return one that no class has measured yet."""
    return Change(tmp_path)


def test_no_change_on_any_class_passes(change: Change) -> None:
    """And the answer for programs lies beside that of the gate."""
    change.says(BIG)
    change.says(SMALL)
    found = change.comment()
    assert (found.exit_code, found.text.splitlines()[1]) == (0, "### no regression: 3 no-change")
    assert "nothing to gate" not in found.text
    assert json.loads((change.folder / "out" / "regression.json").read_bytes())["result"] == "no-regression"


def test_a_loss_on_one_class_refuses(change: Change) -> None:
    """With the cause."""
    change.says(BIG, 0.05)
    change.says(SMALL, -0.05)
    found = change.comment()
    assert (found.exit_code, found.text.splitlines()[1]) == (1, "### refused: loss (duel/worker.py changed)")
    assert "classes disagree" in found.text


def test_a_class_whose_machine_vanished_is_not_measured(change: Change) -> None:
    """Said once, with what to do."""
    change.says(BIG)
    change.ends[SMALL] = None
    found = change.comment()
    assert (found.exit_code, found.text.splitlines()[1]) == (4, "### refused: not-measured")
    assert found.text.count("its job never finished: the runner vanished or none took it") == 1


def test_an_artifact_that_is_none_is_invalid_and_said_once(change: Change) -> None:
    """The class says nothing then, whatever else it sent."""
    change.says(BIG)
    change.ends[SMALL] = "success"
    path = change.folder / "in" / f"evidence-{SMALL}-1.zip"
    path.write_bytes(b"no archive")
    found = change.comment()
    assert (found.exit_code, found.text.splitlines()[1]) == (5, "### refused: invalid")
    assert found.text.count("an artifact that cannot be read") == 1


def test_a_record_of_another_change_is_invalid(change: Change) -> None:
    """Though its manifest is of this one."""
    change.says(BIG)
    change.says(SMALL, found=record(SMALL, "c" * 40, change.head, {NANO: 0.05}))
    found = change.comment()
    assert found.exit_code == 5
    assert "a comparison that is not of this change" in found.text


def test_a_job_that_compared_nothing_is_invalid(change: Change) -> None:
    """Leaving it out of the manifest wins nothing."""
    change.says(BIG)
    github.pack(change.folder / "in", SMALL, change.head, [])
    change.ends[SMALL] = "success"
    assert change.comment().exit_code == 5


def test_a_base_that_cannot_be_rebuilt_says_what_is_lacking(change: Change) -> None:
    """On every class that is required."""
    change.says(BIG)
    change.says(SMALL, found=failed(SMALL, change.base, change.head, "mlx 0.32.0 was withdrawn", "rebase"))
    found = change.comment()
    assert found.exit_code == 4
    assert f"{SMALL}: not-measured: mlx 0.32.0 was withdrawn. Next: rebase" in found.text


def test_a_loss_is_accepted_by_a_file_of_the_change_and_shown_ever_after(change: Change) -> None:
    """The file must name a commit of this change; of an earlier one it is shown and accepts nothing here."""
    change.says(BIG)
    change.says(SMALL, -0.05)
    text = f'workload = "{NANO}"\neffect = "-8 %"\nwhy = "a fix"\n'
    change.scratch.write("baselines/accepted/fix.toml", f'commit = "{change.head}"\n{text}')
    found = change.comment()
    assert (found.exit_code, found.text.splitlines()[1]) == (0, "### no regression: 2 no-change, 1 loss accepted")
    assert "**Accepted, by a file that a maintainer approves**" in found.text
    change.scratch.write("baselines/accepted/fix.toml", f'commit = "{change.base}"\n{text}')
    found = change.comment()
    assert found.exit_code == 1
    assert "**Accepted earlier**" in found.text


def test_a_file_of_what_is_accepted_that_is_none_is_named(change: Change) -> None:
    """Nothing is accepted by half a file."""
    change.says(BIG)
    change.says(SMALL)
    change.scratch.write("baselines/accepted/fix.toml", "commit = 1\n")
    with pytest.raises(MalformedRecordError, match="accepted/fix"):
        change.comment()


def test_one_run_does_fusions_and_programs(change: Change) -> None:
    """Both are in one comment, what refuses first; a class whose machine vanished lacks both."""
    change.scratch.write(str(FUSIONS / "stacked_altup.py"), "# better")
    change.head = change.scratch.commit = change.scratch.save("a fusion too")
    change.says(BIG)
    change.says(SMALL)
    found = change.comment()
    assert found.exit_code == 4
    assert found.text.splitlines()[1] == "### refused: not-measured (stacked-altup); no regression: 3 no-change"
