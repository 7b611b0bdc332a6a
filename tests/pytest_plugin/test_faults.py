"""Faults of the world: damaged records, a full disk, another session, Ctrl-C. Nothing is lost, nothing half-written."""

import errno
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from pytest_benchmark.table import TableResults

from gemma3n_perf.hardware.lock import measuring_lock
from gemma3n_perf.pytest_plugin import storage
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.files import Disk
from gemma3n_perf.store.session_file import save_session
from tests.fakes import CHIP, STACK, edited
from tests.hardware.test_stack import git
from tests.pytest_plugin.stage import LONG, LOSS, TEXT, Stage, environment
from tests.store.test_files import FullDisk

COMPARE = "--benchmark-compare"
HOLD = "import sys; from pathlib import Path; from gemma3n_perf.hardware.lock import measuring_lock\n" + (
    "with measuring_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
)


def _damage(stage: Stage, old: bytes, new: bytes) -> Path:
    path = sorted(stage.baselines.iterdir())[2]
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"benchmarks": [', b'"benchmarks": {', "not JSON"),
        (b'"schema":1', b'"schema":7', "schema 7"),
        (b'"kv_bytes":2000000', b'"kv_bytes":-1', "kv_bytes: -1 bytes"),
        (b'"chip_class":"cpu-fake-2c"', b'"chip_class":"apple-m1-8gpu"', "apple-m1-8gpu in the folder of cpu-fake-2c"),
        (b'"mlx":"0.32.4"', b'"mlx":"0.32.3"', "commits or stacks are mixed"),
        (b'"dirty":false', b'"dirty":true', "named for another commit"),
    ],
)
def test_malformed_baseline_is_named_and_left_alone(stage: Stage, old: bytes, new: bytes, said: str) -> None:
    """Exit 5 with the file, the place in it and the remedy, before anything is measured; the file stays."""
    stage.commit()
    path = _damage(stage, old, new)
    before = path.read_bytes()
    outcome = stage.run(COMPARE)
    assert outcome.code == 5
    assert said in outcome.text
    assert path.name in outcome.text
    assert "next: " in outcome.text
    assert "Traceback" not in outcome.text
    assert stage.script.opened == 0
    assert path.read_bytes() == before
    assert stage.run().code == 0


def test_what_a_file_says_is_no_command_to_a_terminal(stage: Stage) -> None:
    """Nor in what ends the session before it begins; the colours of pytest are."""
    stage.commit()
    (stage.folder / "baselines" / "accepted").mkdir()
    (stage.folder / "baselines" / "accepted" / "x.toml").write_text('"\\u001b]0;title\\u0007\\u001b[2J" = 1\n')
    outcome = stage.run(COMPARE)
    assert outcome.code == 5
    assert "\x1b" not in outcome.text
    assert r"\u001b]0;title" in outcome.text
    (stage.folder / "baselines" / "accepted" / "x.toml").unlink()
    coloured = stage.run("--explain", "--color=yes")
    assert coloured.code == 0
    assert "\x1b[1m" in coloured.text
    assert r"\u001b" not in coloured.text


def test_malformed_local_session_is_named(stage: Stage) -> None:
    """A stored session that does not parse is refused by name, not passed over."""
    stage.run()
    path = stage.local_files[0]
    path.write_bytes(path.read_bytes()[:1000])
    outcome = stage.run(COMPARE)
    assert outcome.code == 5
    assert path.name in outcome.text
    assert len(path.read_bytes()) == 1000


def test_malformed_published_figures_cost_no_verdict(stage: Stage) -> None:
    """Figures of others never gate: damaged, they are named and the report is printed without them."""
    stage.commit()
    stage.script.judgements = {TEXT: LOSS}
    published = stage.folder / "baselines" / "published"
    published.mkdir()
    (published / "someone.json").write_text("{")
    outcome = stage.run(COMPARE)
    assert outcome.code == 1
    assert "someone.json" in outcome.out.replace("\n", "")  # a long path is broken anywhere
    assert outcome.closing == "3 workloads: 1 loss, 2 no-change"


def test_other_session_is_named(stage: Stage) -> None:
    """A second measurement is exit 4 naming process and command of the first, and measures nothing."""
    stage.commit()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(stage.lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(stage.folder), text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        outcome = stage.run(COMPARE)
    finally:
        holder.communicate()
    assert outcome.code == 4
    assert f"this machine is being measured by process {holder.pid} of " in outcome.text
    assert "wait for it to end (--wait 300 does, for so many seconds), or stop it" in outcome.text
    assert outcome.closing == "3 workloads: 3 not-measured"
    assert stage.script.opened == 0
    assert stage.local_files == []
    assert stage.run(COMPARE).code == 0


def test_full_disk_keeps_the_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room to store it the session is still judged and printed; exit 4 says that no record is left."""
    stage.commit()
    monkeypatch.setattr(storage, "save_session", partial(save_session, disk=FullDisk(0)))
    outcome = stage.run(COMPARE)
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 3 no-change"
    assert "warning: no room left to write in" in outcome.text
    assert "free some space" in outcome.text
    assert list((stage.folder / "data" / "sessions").rglob("*.*")) == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no room left to write in"),
        (errno.EDQUOT, "no room left to write in"),
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_any_write_may_fail(stage: Stage, monkeypatch: pytest.MonkeyPatch, code: int, said: str, number: int) -> None:
    """The session's and the duel's: the other is stored, nothing is half-written, and the verdicts are printed."""
    stage.commit()
    writes, real = itertools.count(), Disk.write

    def write(disk: Disk, path: Path, data: bytes) -> None:
        if next(writes) == number:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(code, os.strerror(code))
        real(disk, path, data)

    monkeypatch.setattr(Disk, "write", write)
    outcome = stage.run(COMPARE)
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 3 no-change"
    assert said in outcome.text
    assert "next: " in outcome.text or ": check " in outcome.text or "free some space" in outcome.text
    (kept,) = (path for path in (stage.folder / "data").rglob("*") if path.is_file())
    json.loads(kept.read_bytes())


def test_a_data_folder_that_cannot_be_is_named(stage: Stage) -> None:
    """As in a home that is read-only: verdicts are printed, and exit 4 says that no record is left."""
    stage.commit()
    (stage.folder / "data").write_text("no folder")
    outcome = stage.run(COMPARE)
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 3 no-change"
    assert "cannot write in" in outcome.text


def test_full_disk_hides_no_loss(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that could not be stored is a loss."""
    stage.script.judgements = {TEXT: LOSS}
    monkeypatch.setattr(storage, "save_session", partial(save_session, disk=FullDisk(0)))
    assert stage.run(COMPARE).code == 1


def test_full_disk_hides_no_bug(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of storing is not taken for the explanation of a failed test."""
    stage.script.raises = {LONG: ValueError("a bug")}
    monkeypatch.setattr(storage, "save_session", partial(save_session, disk=FullDisk(0)))
    assert stage.run("-k", "decode").code == 70


def test_interrupt_leaves_nothing_half_written(stage: Stage) -> None:
    """Ctrl-C ends with pytest's 2, the verdicts so far, no stored session and a free machine."""
    stage.commit()
    stage.script.raises = {LONG: KeyboardInterrupt()}
    outcome = stage.run(COMPARE, "--benchmark-autosave")
    assert outcome.code == 2
    assert outcome.closing == "3 workloads: 3 no-change"  # the duel was over
    assert "interrupted, so it is not stored" in outcome.text
    assert "before the duel was over" not in outcome.text
    assert list((stage.folder / "data" / "sessions").rglob("*.*")) == []
    assert len(list(stage.baselines.iterdir())) == 5
    with measuring_lock(stage.lock) as taken:
        assert taken


def test_interrupted_duel_says_what_it_had_shown(stage: Stage) -> None:
    """Ctrl-C during the duel ends with 2; what launches had shown is printed, and no session is stored."""
    stage.script.judgements = {TEXT: LOSS}
    stage.script.duel = KeyboardInterrupt()
    outcome = stage.run(COMPARE)
    assert outcome.code == 2
    assert "interrupted before the duel was over" in outcome.text
    assert "Traceback" not in outcome.text
    assert outcome.closing == "3 workloads: 1 loss, 2 no-change"
    assert stage.local_files == []


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (["--benchmark-save=mine"], ".benchmarks/{}/0001_mine.json"),
        (["--benchmark-save=mine", COMPARE], ".benchmarks/{}/0001_mine.json"),
        (["--benchmark-autosave"], ".benchmarks/{}/0001_*.json"),
        (["--benchmark-save=mine", COMPARE, "--benchmark-storage=file://kept"], "kept/{}/0001_mine.json"),
    ],
)
def test_saving_is_pytest_benchmarks_own(stage: Stage, options: list[str], where: str) -> None:
    """It saves where its manual says, of changed trees too, and never touches the baselines."""
    stage.commit()
    stage.stack = replace(STACK, dirty=True)
    assert stage.run(*options).code == 0
    (path,) = stage.folder.glob(where.format(CHIP.chip_class))
    stored = json.loads(path.read_bytes())
    assert "data" not in stored["benchmarks"][0]["stats"]  # that takes --benchmark-save-data
    assert {one["fullname"] for one in stored["benchmarks"]} >= {f"perf/bench_decode.py::test_decode[{TEXT}]"}
    assert len(list(stage.baselines.iterdir())) == 5
    assert stage.run(COMPARE).code == 0


def test_a_planted_session_is_never_saved(stage: Stage) -> None:
    """Refused before measuring."""
    outcome = stage.run("--benchmark-autosave", "--plant-slowdown=5%")
    assert outcome.code == 2
    assert stage.script.opened == 0


@pytest.mark.parametrize(("judgement", "code"), [({}, 4), ({TEXT: LOSS}, 1)])
def test_a_storage_that_cannot_be_written_costs_no_answer(
    stage: Stage, judgement: dict[str, Judgement], code: int
) -> None:
    """The session was stored and is judged; pytest-benchmark's own file is missing, which is said."""
    stage.script.judgements = judgement
    (stage.folder / "kept").write_text("a file")
    outcome = stage.run(COMPARE, "--benchmark-save=mine", "--benchmark-storage=file://kept")
    assert outcome.code == code
    assert f"3 workloads: {'1 loss, 2' if judgement else '3'} no-change" in outcome.text
    assert "Not a directory" in outcome.text
    assert len(stage.local_files) == 2  # session and duel


def test_a_bug_of_pytest_benchmarks_costs_no_answer(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its table may break: the duel's report is printed, and the exit code is that of a fault."""
    monkeypatch.setattr(TableResults, "display", lambda *arguments, **others: 1 / 0)
    outcome = stage.run(COMPARE)
    assert outcome.code == 70
    assert outcome.closing == "3 workloads: 3 no-change"
    assert "ZeroDivisionError" in outcome.text
    assert len(stage.local_files) == 2  # session and duel


def test_drawing_without_its_package_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before measuring, with the command that installs it; with it, samples are taken of the same program too."""
    monkeypatch.setitem(sys.modules, "pytest_benchmark.histogram", None)
    outcome = stage.run("--benchmark-histogram")
    assert outcome.code == 2
    assert "pip install 'pytest-benchmark[histogram]'" in outcome.text
    assert stage.script.opened == 0


def test_planted_slowdown_is_marked_everywhere_and_stored_nowhere(stage: Stage) -> None:
    """The test button fails a comparison, marks heading, warning, closing line and JSON, and leaves no record."""
    stage.commit()
    outcome = stage.run(COMPARE, "--plant-slowdown", "25%", "--benchmark-json=out.json")
    assert outcome.code == 1
    assert "PLANTED SLOWDOWN of 25 %: no number below is the code's own" in outcome.text
    assert "warning: a slowdown was planted in this session" in outcome.text
    assert outcome.closing == "3 workloads: 3 loss [planted 25 %]"
    assert stage.local_files == []
    written = json.loads((stage.folder / "out.json").read_bytes())
    assert written["machine_info"]["gemma3n_perf"]["planted"] == 0.25
    marks = [one["extra_info"].get("gemma3n_perf", {}).get("planted") for one in written["benchmarks"]]
    assert marks.count(0.25) == 3


def test_planted_slowdown_is_marked_without_a_table(stage: Stage) -> None:
    """Where only prefill is timed there is no table of ours, and still the mark."""
    outcome = stage.run("-k", "prefill", "--plant-slowdown", "25%")
    assert "PLANTED SLOWDOWN of 25 %" in outcome.text


def test_planted_baseline_is_refused(stage: Stage) -> None:
    """A record that admits a planted slowdown can stand in for nothing."""
    stage.run()
    path = stage.local_files[0]
    data = edited(path.read_bytes(), "machine_info.gemma3n_perf.planted", 0.25)
    for index in range(len(json.loads(data)["benchmarks"])):
        if "gemma3n_perf" in json.loads(data)["benchmarks"][index]["extra_info"]:
            data = edited(data, f"benchmarks.{index}.extra_info.gemma3n_perf.planted", 0.25)
    path.write_bytes(data)
    outcome = stage.run(COMPARE)
    assert outcome.code == 5
    assert "planted" in outcome.text


def test_disabled_benchmarks_store_nothing(stage: Stage) -> None:
    """--benchmark-disable takes no samples, so no record can be made; it says so instead of failing."""
    outcome = stage.run("--benchmark-disable")
    assert outcome.code == 0
    assert "pytest-benchmark took no samples, so the session is not stored" in outcome.text
    assert stage.local_files == []


def test_chip_class_is_the_machines_not_pytest_benchmarks(stage: Stage) -> None:
    """Sessions of two chips do not meet, whatever system and Python they share."""
    stage.run()
    stage.chip = replace(CHIP, chip_class="cpu-other-4c")
    outcome = stage.run(COMPARE)
    assert outcome.code == 0
    assert "stored: " not in outcome.text
    sessions = (stage.folder / "data" / "sessions").rglob("*.json")
    assert {path.parent.name for path in sessions} == {"cpu-fake-2c", "cpu-other-4c"}


@pytest.mark.parametrize("commits", [0, 1])
def test_another_projects_git_costs_no_session(stage: Stage, commits: int) -> None:
    """pytest-benchmark asks git about the working directory; the suite's own commit is what was measured."""
    git(Path.cwd(), "init", "-q")
    for _ in range(commits):
        git(Path.cwd(), "commit", "-q", "--allow-empty", "-m", "another project's")
    outcome = stage.run()
    assert outcome.code == 0, outcome.text
    (stored,) = stage.local_files
    assert json.loads(stored.read_bytes())["commit_info"]["id"] == STACK.commit
