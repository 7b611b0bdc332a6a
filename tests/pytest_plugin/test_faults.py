"""Faults of the world: damaged records, a full disk, another session, Ctrl-C. Nothing is lost, nothing half-written."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gemma3n_perf.hardware.lock import measuring_lock
from gemma3n_perf.pytest_plugin import storage
from gemma3n_perf.store.session_file import save_session
from tests.fakes import CHIP, STACK, edited
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
    assert "wait for it to end, or stop it" in outcome.text
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


def test_full_disk_hides_no_loss(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that could not be stored is a loss."""
    stage.script.judgements = {TEXT: LOSS}
    monkeypatch.setattr(storage, "save_session", partial(save_session, disk=FullDisk(0)))
    assert stage.run(COMPARE).code == 1


def test_full_disk_hides_no_bug(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of storing is not taken for the explanation of a failed test."""
    stage.script.raises = {LONG: ValueError("a bug")}
    monkeypatch.setattr(storage, "save_session", partial(save_session, disk=FullDisk(0)))
    assert stage.run("-k", "decode").code == 1


def test_interrupt_leaves_nothing_half_written(stage: Stage) -> None:
    """Ctrl-C ends with pytest's 2, the verdicts so far, no stored session and a free machine."""
    stage.commit()
    stage.script.raises = {LONG: KeyboardInterrupt()}
    outcome = stage.run(COMPARE, "--benchmark-autosave")
    assert outcome.code == 2
    assert outcome.closing == "3 workloads: 3 not-measured"
    assert stage.script.duelled == []
    assert "interrupted, so it is not stored" in outcome.text
    assert stage.local_files == []
    assert len(list(stage.baselines.iterdir())) == 5
    with measuring_lock(stage.lock) as taken:
        assert taken


def test_interrupted_duel_loses_no_session(stage: Stage) -> None:
    """Ctrl-C during the duel ends with 2; the session was stored before, what launches had shown is printed."""
    stage.script.judgements = {TEXT: LOSS}
    stage.script.duel = KeyboardInterrupt()
    outcome = stage.run(COMPARE)
    assert outcome.code == 2
    assert "interrupted before the duel was over" in outcome.text
    assert "Traceback" not in outcome.text
    assert outcome.closing == "3 workloads: 1 loss, 2 no-change"
    assert len(stage.local_files) == 1


@pytest.mark.parametrize("option", ["--benchmark-autosave", "--benchmark-save=mine"])
def test_saving_adds_a_baseline_that_its_own_tool_reads(stage: Stage, option: str) -> None:
    """A saved session lands in the class's folder with raw samples, and compares at once as committed."""
    outcome = stage.run(option)
    assert outcome.code == 0
    assert "saved as 0001_0123456789ab.json in cpu-fake-2c" in outcome.text
    path = stage.baselines / "0001_0123456789ab.json"
    stored = json.loads(path.read_bytes())
    samples = {one["fullname"]: one["stats"]["data"] for one in stored["benchmarks"]}
    assert len(samples[f"perf/bench_decode.py::test_decode[{TEXT}]"]) == 10
    stage.run(COMPARE)
    assert stage.script.requests[-1].baseline == STACK


def test_saving_uncommitted_changes_is_refused(stage: Stage) -> None:
    """A dirty session would make the folder unreadable as a baseline, so it is refused before measuring."""
    stage.stack = replace(STACK, dirty=True)
    outcome = stage.run("--benchmark-autosave")
    assert outcome.code == 2
    assert "uncommitted changes" in outcome.text
    assert not stage.baselines.exists()
    assert stage.script.opened == 0


def test_saving_what_does_not_belong_is_refused_and_kept(stage: Stage) -> None:
    """Other tokens under the same commit and stack are exit 5; the folder stays as it was, the local copy is kept."""
    stage.commit()
    stage.script.changes = {TEXT: {"token_digest": "tokens:2"}}
    outcome = stage.run("--benchmark-autosave")
    assert outcome.code == 5
    assert "differs in token_digest" in outcome.text
    assert len(list(stage.baselines.iterdir())) == 5
    assert len(stage.local_files) == 1
    assert outcome.closing == "3 workloads: 3 not compared"


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
