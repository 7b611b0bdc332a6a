import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gemma3n_perf.cli import duel as command
from gemma3n_perf.duel import record as store
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.errors import DiskFullError, MalformedRecordError
from gemma3n_perf.stats.estimates import estimate_launch
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.store.files import Disk
from tests.duel.arena import Arena, noisy, stalling
from tests.duel.duels import NOW, asked, machine
from tests.fakes import WORKLOAD


@pytest.fixture
def record(tmp_path: Path) -> store.DuelRecord:
    """Return the record of a duel in which blocks were discarded."""
    here = machine(Arena(noisy(), contended=lambda block: block % 40 == 0), tmp_path)
    return dueling.record_of(dueling.duel(asked(candidate="here+plant:+5%"), here, NOW), here.chip)


def changed(record: store.DuelRecord, edit: Any) -> bytes:
    """Return the record's JSON after ``edit`` has changed it."""
    tree = json.loads(store.DUELS.encode(record))
    edit(tree)
    return json.dumps(tree).encode()


def stretch(arms: str) -> dict[str, Any]:
    """Return blocks of a nanosecond, as a record holds them."""
    return {"arms": arms, "tpot_ns": [1] * len(arms), "conditions": {}}


def test_a_record_reads_back_as_it_was(record: store.DuelRecord) -> None:
    """Raw blocks, discarded ones and conditions included."""
    assert record.duels[0].raw[0].discarded
    assert store.DUELS.decode(store.DUELS.encode(record), "x") == record


def test_a_record_keeps_steps_and_is_judged_by_them(tmp_path: Path) -> None:
    """Read again, they give the same effect, which is not that of the blocks."""
    here = machine(Arena(noisy(), steps_s=stalling()), tmp_path)
    kept = dueling.record_of(dueling.duel(asked(candidate="here+plant:+5%"), here, NOW), here.chip)
    again = store.DUELS.decode(store.DUELS.encode(kept), "x")
    assert again == kept
    found = estimates(again.duels[0].raw)
    judged = judge(found, kept.policy, budget_s=kept.budget_s, budget_spent=kept.duels[0].budget_spent)
    assert (judged.effect, judged.low, judged.high) == (kept.effect, kept.low, kept.high)
    blocks = [estimate_launch(one.tpot_s("baseline"), one.tpot_s("candidate"), seconds=1) for one in again.duels[0].raw]
    assert abs(blocks[0].log_ratio - found[0].log_ratio) > 1e-4


def test_a_record_has_the_documented_fields(record: store.DuelRecord) -> None:
    """The names are a contract: a change of them must raise the schema's number."""
    tree = json.loads(store.DUELS.encode(record))
    documented = {"verdict", "effect", "low", "high", "measured_s", "launches"}
    documented |= {"workload", "arms", "stacks", "chip", "date"}
    assert documented <= tree.keys()
    assert tree["verdict"] == "loss"
    assert tree["low"] <= tree["effect"] <= tree["high"] < 0
    assert tree["launches"] == len(tree["duels"][0]["raw"])
    assert tree["planted"] == {"baseline": 0.0, "candidate": 0.05}
    stretch = tree["duels"][0]["raw"][0]["pairs"][0]
    assert stretch.keys() == {"arms", "tpot_ns", "seconds_ns", "conditions"}
    assert stretch["conditions"].keys() == {"steal", "throttle_reasons"} - {"throttle_reasons"}


def test_a_recorded_duel_can_be_judged_again(record: store.DuelRecord) -> None:
    """The raw blocks give the same verdict and interval."""
    duel = record.duels[0]
    again = judge(estimates(duel.raw), record.policy, budget_s=record.budget_s, budget_spent=duel.budget_spent)
    assert again.verdict.value == record.verdict
    assert (again.effect, again.low, again.high) == (record.effect, record.low, record.high)


def test_blocks_that_share_conditions_are_one_line(record: store.DuelRecord) -> None:
    """So that a long record can be read, and is no longer than it must be."""
    data = store.DUELS.encode(record)
    lines = data.decode().splitlines()
    stretches = [one for raw in json.loads(data)["duels"][0]["raw"] for one in (*raw["pairs"], *raw["discarded"])]
    assert sum('"tpot_ns"' in line for line in lines) == len(stretches)
    blocks = sum(2 * (len(one.pairs) + len(one.discarded)) for one in record.duels[0].raw)
    assert sum(len(one["arms"]) for one in stretches) == blocks > 2 * len(stretches)


def test_pairs_of_older_records_are_read(record: store.DuelRecord) -> None:
    """There each block stands by itself, with conditions of its own."""
    data = json.dumps(msgspec.to_builtins(record)).encode()
    assert b"tpot_ns" not in data
    assert store.DUELS.decode(data, "x") == record


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda tree: tree.update(schema=2), "schema 2"),
        (lambda tree: tree.pop("verdict"), "verdict"),
        (lambda tree: tree.update(duels=[]), "no workload"),
        (lambda tree: tree["duels"][0].update(raw=5), "raw"),
        (lambda tree: tree["arms"].pop("baseline"), "arms is of candidate"),
        (lambda tree: tree["duels"][0]["raw"][0].update(pairs=[]), "no pair of blocks"),
        (lambda tree: tree["duels"][0]["raw"][1]["pairs"][0]["tpot_ns"].__setitem__(0, 0), "launch 2: a block of 0"),
        (lambda tree: tree["duels"][0]["raw"][0]["pairs"][0].update(faults=["steal"]), "contended block"),
        (lambda tree: tree["duels"][0]["raw"][0]["pairs"][0]["tpot_ns"].append(1), "longer than"),
        (
            lambda tree: tree["duels"][0]["raw"][0]["pairs"][0].update(arms="b", tpot_ns=[1], seconds_ns=[1]),
            "make pairs",
        ),
        (lambda tree: tree["duels"][0]["raw"][0]["pairs"][0].update(tpot_ns="1"), "array"),
        (lambda tree: tree["duels"][0]["raw"][0]["pairs"][0].update(invented=1), "invented"),
        (lambda tree: tree["duels"][0]["raw"][0].update(held=tree["duels"][0]["raw"][0].pop("pinned")), None),
        (lambda tree: tree.update(invented=1), r"\$\.invented: no such field is known"),
        (
            lambda tree: tree["duels"][0]["raw"][1]["pairs"][0]["conditions"].update(invented=1),
            r"raw\[1\]\.pairs\[0\]\[0\]\.conditions\.invented: no such field is known",
        ),
        (
            lambda tree: tree["duels"][0]["raw"][0]["pairs"].insert(
                0, {"arms": "bx", "tpot_ns": [1, 1], "conditions": {}}
            ),
            "pair of one arm",
        ),
        (lambda tree: tree["duels"][0]["raw"][0]["prefills"].update(ttft_s=[[0.1, 0.0]]), "a prefill of 0"),
    ],
)
def test_a_record_that_is_half_right_is_wrong(record: store.DuelRecord, edit: Any, found: str | None) -> None:
    """The error names the file and the place."""
    data = changed(record, edit)
    if found is None:
        assert store.DUELS.decode(data, "x")
        return
    with pytest.raises(MalformedRecordError, match=rf"(?s)x\.json.*{found}"):
        store.DUELS.decode(data, "x.json")


def test_a_truncated_record_is_named(record: store.DuelRecord, tmp_path: Path) -> None:
    """And so is one that cannot be read."""
    path = tmp_path / "duel.json"
    path.write_bytes(store.DUELS.encode(record)[:-40])
    with pytest.raises(MalformedRecordError, match=r"duel\.json"):
        store.DUELS.read(path)
    with pytest.raises(MalformedRecordError, match="No such file"):
        store.DUELS.read(tmp_path / "missing.json")


def test_a_full_disk_leaves_the_old_record(record: store.DuelRecord, tmp_path: Path) -> None:
    """Written whole or not at all."""

    class Full(Disk):
        """Has no room."""

        def write(self, path: Path, data: bytes) -> None:
            """Fail."""
            raise OSError(28, "No space left on device")

    path = tmp_path / "duel.json"
    store.DUELS.write(path, record)
    before = path.read_bytes()
    with pytest.raises(DiskFullError):
        store.DUELS.write(path, record, Full())
    assert path.read_bytes() == before
    assert store.DUELS.read(path) == record


def test_a_duel_that_measured_nothing_has_a_record_too(tmp_path: Path) -> None:
    """Without effect, and with the reason."""
    from gemma3n_perf.errors import WorkerFailedError

    here = machine(Arena(raises={("candidate", "load"): WorkerFailedError("it hung")}), tmp_path)
    result = dueling.duel(asked(), here, NOW)
    out = io.StringIO()
    assert command.report_on(result, here, tmp_path / "duel.json", out) == 4
    kept = store.DUELS.read(tmp_path / "duel.json")
    assert (kept.verdict, kept.effect, kept.launches, kept.stacks) == ("not-measured", None, 0, {})
    assert kept.duels[0].judgement.reason == "it hung"
    assert out.getvalue().startswith(f"not-measured: {WORKLOAD}: it hung\n")
