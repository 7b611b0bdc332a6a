import json
import lzma
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import DiskFullError, InvalidError, MalformedRecordError
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.store import admitted
from gemma3n_perf.store.files import Disk
from tests.gate.evidence_files import ALTUP, BIG, NOTE, ONE, Scratch, edited, reworked


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """Return a repository of two fusions."""
    return Scratch(tmp_path_factory.mktemp("evidence") / "repo")


@pytest.fixture
def record(scratch: Scratch) -> Evidence:
    """Return evidence of a win."""
    return scratch.evidence(BIG)


def test_a_record_reads_back_as_it_was(record: Evidence, tmp_path: Path) -> None:
    """Blocks, judgements of each session and checks included, under the name of its class and fusion."""
    path = store.write(tmp_path, record)
    assert path == tmp_path / BIG / "fusions" / f"{ALTUP}.json"
    kept = store.read(path)
    assert kept.content_digest
    assert kept.workloads == record.workloads
    assert kept.checked == record.checked
    assert (kept.notes, kept.sources, kept.stacks) == ((NOTE,), record.sources, record.stacks)


def test_measuring_again_is_counted_and_what_was_measured_kept(record: Evidence, tmp_path: Path) -> None:
    """Attempts are of the same sources; of others, and where a file cannot be read, it is kept all the same."""

    def again(of: Evidence) -> int:
        number = store.attempt(tmp_path, BIG, of.fusion, of.sources)
        store.write(tmp_path, replace(of, attempts=number))
        return number

    path, other = store.path_of(tmp_path, BIG, record.fusion), replace(record, sources="0" * 64)
    assert again(record) == 1
    assert not (path.parent / "earlier").exists()
    first = path.read_bytes()
    assert (again(record), again(record), again(other), again(other)) == (2, 3, 1, 2)
    path.write_bytes(b"{")
    assert again(other) == 1
    kept = [path.parent / "earlier" / f"{record.fusion}.{number}.json.xz" for number in range(1, 6)]
    assert sorted((path.parent / "earlier").iterdir()) == kept
    assert lzma.decompress(kept[0].read_bytes()) == first
    assert [store.read(one).attempts for one in kept[:4]] == [1, 2, 3, 1]
    assert lzma.decompress(kept[4].read_bytes()) == b"{"
    # One that an older release kept as it was.
    kept[0].with_suffix("").write_bytes(first)
    kept[0].unlink()
    assert again(record) == 1
    assert (kept[0].parent / f"{record.fusion}.6.json.xz").is_file()
    assert store.read(kept[0].with_suffix("")).attempts == 1


def test_a_record_without_launches_makes_way(record: Evidence, tmp_path: Path) -> None:
    """A failed check is made again in seconds; attempts that were measured before it go on being counted."""
    store.write(tmp_path, replace(record, workloads=(), attempts=2))
    assert store.attempt(tmp_path, BIG, record.fusion, record.sources) == 2
    assert not (store.path_of(tmp_path, BIG, record.fusion).parent / "earlier").exists()


def test_a_composition_has_the_plus_in_its_name(scratch: Scratch) -> None:
    """So that a folder shows what was composed."""
    both = scratch.evidence(BIG, f"{ALTUP}+compiled-geglu")
    assert store.path_of(Path("b"), BIG, both.fusion).name == f"{ALTUP}+compiled-geglu.json"


def test_a_record_has_the_documented_fields(record: Evidence) -> None:
    """The names are a contract: a change of them must raise the schema's number."""
    tree = json.loads(store.encode(record))
    assert tree["schema"] == 1
    expected = {"fusion", "verdict", "reason", "enabled", "sources", "commit", "dirty", "date", "chip", "stacks"}
    assert tree.keys() == expected | {"schema", "checked", "workloads", "notes", "content_digest", "attempts"}
    one = tree["workloads"][0]
    assert one.keys() == {"workload", "judgement", "per_session", "budget_s", "raw", "spent"}
    assert len(one["per_session"]) == 2
    assert tree["checked"][0].keys() >= {"checkpoint", "dispatch", "parity", "memory_ratio", "weights_kept"}


def test_blocks_that_share_conditions_are_one_line(record: Evidence) -> None:
    """So that a record can be read and compared by lines."""
    data = store.encode(record)
    launches = [launch for one in json.loads(data)["workloads"] for launch in one["raw"]]
    stretches = sum(len(launch["pairs"]) for launch in launches)
    assert sum('"tpot_ns"' in line for line in data.decode().splitlines()) == stretches


def test_the_digest_does_not_depend_on_layout_or_order(record: Evidence) -> None:
    """It is of the content."""
    tree = json.loads(store.encode(record))
    shuffled = dict(reversed(list(tree.items())))
    assert store.content_digest(shuffled) == tree["content_digest"]
    assert store.decode(json.dumps(shuffled, indent=4).encode(), "x") == store.decode(store.encode(record), "x")


def _leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [leaf for key, value in items for leaf in _leaves(value, (*path, key))] if items else [path]


def test_every_number_and_word_is_under_the_digest(record: Evidence) -> None:
    """One changed value anywhere, and the file is refused."""
    tree = json.loads(store.encode(record))
    leaves = _leaves(tree)
    for leaf in leaves[:: max(1, len(leaves) // 60)]:
        changed = json.loads(json.dumps(tree))
        node = changed
        for key in leaf[:-1]:
            node = node[key]
        value = node[leaf[-1]]
        node[leaf[-1]] = not value if isinstance(value, bool) else value * 2 if value else 7
        if node[leaf[-1]] == value:
            continue
        with pytest.raises(InvalidError):
            store.decode(json.dumps(changed).encode(), "x")


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda tree: tree.update(schema=9), "schema 9"),
        (lambda tree: tree["stacks"].pop("baseline"), "stacks is of candidate"),
        (lambda tree: tree["workloads"].append(tree["workloads"][0]), f"{ONE} is there twice"),
        (lambda tree: tree["workloads"][0].update(budget_s=0.0), "a budget of 0.0 s"),
        (lambda tree: tree["workloads"][0]["raw"][0].update(pairs=[]), "launch 1 has no pair"),
        (
            lambda tree: tree["workloads"][0]["raw"][1]["pairs"][0]["tpot_ns"].__setitem__(0, 0),
            "launch 2: a block of 0",
        ),
        (lambda tree: tree["workloads"][0]["raw"][0]["pairs"][0].update(faults=["steal"]), "contended block"),
        (
            lambda tree: tree["workloads"][0]["raw"][0]["pairs"].insert(
                0, {"arms": "bx", "tpot_ns": [1, 1], "conditions": {}}
            ),
            "a pair of one arm",
        ),
        (lambda tree: tree.pop("commit"), "commit"),
    ],
)
def test_a_record_that_is_half_right_is_wrong(record: Evidence, tmp_path: Path, edit: Any, found: str) -> None:
    """Even where its digest fits; the error names the file and the place."""
    path = store.write(tmp_path, record)
    reworked(path, edit)
    with pytest.raises(MalformedRecordError, match=rf"(?s){ALTUP}\.json.*{found}"):
        store.read(path)


def test_an_edited_record_is_invalid_and_left_alone(record: Evidence, tmp_path: Path) -> None:
    """Not malformed: it reads well, and says what nobody measured."""
    path = store.write(tmp_path, record)
    edited(path, lambda tree: tree["checked"][0]["parity"].update(passed=False))
    before = path.read_bytes()
    with pytest.raises(InvalidError, match="edited after it was written") as caught:
        store.read(path)
    assert not isinstance(caught.value, MalformedRecordError)
    assert path.read_bytes() == before


def test_a_full_disk_leaves_the_old_record(record: Evidence, tmp_path: Path) -> None:
    """Written whole or not at all."""

    class Full(Disk):
        """Has no room."""

        def write(self, path: Path, data: bytes) -> None:
            """Fail."""
            raise OSError(28, "No space left on device")

    path = store.write(tmp_path, record)
    before = path.read_bytes()
    with pytest.raises(DiskFullError):
        store.write(tmp_path, record, Full())
    assert path.read_bytes() == before


def test_infinity_becomes_unknown(record: Evidence, tmp_path: Path) -> None:
    """JSON has none; the digest is of what a reader finds."""
    from dataclasses import replace

    first = record.workloads[0]
    wide = replace(first, judgement=replace(first.judgement, low=float("-inf"), high=float("inf")))
    kept = store.read(store.write(tmp_path, replace(record, workloads=(wide,))))
    assert (kept.workloads[0].judgement.low, kept.workloads[0].judgement.high) == (None, None)


def test_admitted_fusions_read_back(tmp_path: Path) -> None:
    """In their order; none where the gate has admitted none; a broken file is named."""
    assert admitted.read(tmp_path, BIG) == ()
    path = admitted.write(tmp_path, BIG, (ALTUP, "compiled-geglu"))
    assert admitted.read(tmp_path, BIG) == (ALTUP, "compiled-geglu")
    assert json.loads(path.read_text()) == {"schema": 1, "fusions": [ALTUP, "compiled-geglu"], "grounds": None}
    path.write_text('{"schema": 1, "fusions": ["stacked-altup"]}')
    assert admitted.read(tmp_path, BIG) == (ALTUP,), "as releases before 0.3 wrote it"
    path.write_text('{"schema": 2, "fusions": []}')
    with pytest.raises(MalformedRecordError, match=r"admitted\.json: schema 2"):
        admitted.read(tmp_path, BIG)
    path.write_text("{")
    with pytest.raises(MalformedRecordError, match=r"admitted\.json"):
        admitted.read(tmp_path, BIG)
