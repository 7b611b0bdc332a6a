from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import (
    DiskFullError,
    MalformedRecordError,
    NoBaselineError,
    NotComparableError,
    PerfError,
    UsageError,
)
from gemma3n_perf.store.baselines import Baselines
from gemma3n_perf.store.session_file import encode
from tests.fakes import CHIP, STACK, WORKLOAD, document, edited, measurement, write_session
from tests.store.test_files import FullDisk

CLASS = CHIP.chip_class
OTHER = replace(STACK, commit="f" * 40)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository's baselines folder with five sessions of one class."""
    for number in range(1, 6):
        write_session(tmp_path / "baselines" / CLASS, number)
    return tmp_path / "baselines"


def local(tmp_path: Path, count: int = 5, first: int = 1, **options: Any) -> list[Path]:
    """Write ``count`` local sessions."""
    folder = tmp_path / "local" / CLASS
    return [write_session(folder, number, f"local{number}", **options) for number in range(first, first + count)]


def contents(folder: Path) -> dict[str, bytes]:
    """Return what every file of a folder holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def test_load_gives_all_sessions_in_order(root: Path) -> None:
    """The reference is every session of the class, oldest first, labelled committed."""
    baseline = Baselines(root).load(CLASS)
    assert baseline is not None
    assert [session.id for session in baseline.sessions] == ["s1", "s2", "s3", "s4", "s5"]
    assert baseline.workloads == (WORKLOAD,)
    assert len(baseline.sessions_of(WORKLOAD)) == 5
    assert baseline.sessions_of("nano/text/pp140-tg64") == ()
    assert (baseline.label, len(baseline.sessions_of(WORKLOAD))) == ("committed", 5)
    assert baseline.chip == CHIP


def test_absent_class_is_none_and_required_class_an_error(root: Path) -> None:
    """No baseline is an ordinary answer; whoever needs one is told which there are."""
    assert Baselines(root).load("apple-m4-10gpu") is None
    with pytest.raises(NoBaselineError, match=CLASS):
        Baselines(root).require("apple-m4-10gpu")
    assert Baselines(root / "nowhere").classes() == ()


def test_newest_set_is_the_reference_older_is_history(root: Path) -> None:
    """A new commit's sessions take over whole; old ones are never mixed in."""
    for number in range(6, 11):
        write_session(root / CLASS, number, stack=OTHER)
    baseline = Baselines(root).require(CLASS)
    assert baseline.stack == OTHER
    assert baseline.files[0] == "0006_ffffffffffff.json"
    assert len(baseline.sessions) == 5
    assert [one.stack for one in Baselines(root).history(CLASS)] == [STACK, OTHER]


def test_stack_alone_makes_a_new_set(root: Path) -> None:
    """The same commit with another mlx is another reference, once it has as many sessions as a reference needs."""
    for number in range(6, 11):
        write_session(root / CLASS, number, stack=replace(STACK, mlx="0.32.5"))
        assert len(Baselines(root).history(CLASS)[-1].sessions) == number - 5
        found = Baselines(root).require(CLASS)
        assert (found.stack.mlx, len(found.sessions)) == (("0.32.5" if number == 10 else STACK.mlx), 5)


def test_list_leaves_out_published_and_empty_folders(root: Path) -> None:
    """Only folders with sessions are chip classes."""
    (root / "published").mkdir()
    (root / "published" / "x.json").write_text("{}")
    (root / "apple-m9").mkdir()
    write_session(root / "apple-m1-8gpu", 1, chip=replace(CHIP, chip_class="apple-m1-8gpu"))
    assert [one.chip.chip_class for one in Baselines(root).list()] == ["apple-m1-8gpu", CLASS]


Break = Callable[[Path], object]


def _edit(path: str, value: object) -> Break:
    def change(folder: Path) -> None:
        file = folder / "0003_0123456789ab.json"
        file.write_bytes(edited(file.read_bytes(), path, value))

    return change


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: write_session(folder, 3, chip=replace(CHIP, chip_class="cpu-other-2c")), "folder of cpu-fake"),
        (lambda folder: write_session(folder, 3, chip=replace(CHIP, name="Other CPU")), "differ in name"),
        (lambda folder: write_session(folder, 3, "s2"), "there twice"),
        (lambda folder: write_session(folder, 3, planted=0.1), "10% was planted"),
        (lambda folder: write_session(folder, 3, stack=replace(STACK, mlx="0.32.3")), "mixed"),
        (lambda folder: (folder / "0003_0123456789ab.json").rename(folder / "0003_fffffff.json"), "another commit"),
        (lambda folder: (folder / "0003_0123456789ab.json").rename(folder / "0003_unversioned.json"), "another commit"),
        (_edit("machine_info.gemma3n_perf.stack.dirty", True), "another commit"),
        (_edit("machine_info.gemma3n_perf.stack.dirty", None), "uncommitted changes, or none known"),
        (_edit("benchmarks.0.extra_info.gemma3n_perf.token_digest", "else"), "token_digest"),
        (_edit("benchmarks.0.extra_info.gemma3n_perf.checkpoint_digest", "else"), "checkpoint_digest"),
        (_edit("benchmarks.0.extra_info.gemma3n_perf.engine", "mlx_lm"), "engine"),
        (lambda folder: (folder / "0003_0123456789ab.json").write_text("{"), "not JSON"),
    ],
)
def test_spoilt_baseline_is_refused(root: Path, spoil: Break, said: str) -> None:
    """One bad file refuses the whole class, by name; nothing is compared with what is left."""
    spoil(root / CLASS)
    with pytest.raises(MalformedRecordError) as caught:
        Baselines(root).load(CLASS)
    assert said in caught.value.found
    assert CLASS in caught.value.found
    assert caught.value.exit_code == 5


def test_commit_of_another_between_is_refused(root: Path) -> None:
    """A session of another commit amid a set means commits were mixed."""
    (root / CLASS / "0003_0123456789ab.json").unlink()
    write_session(root / CLASS, 3, stack=OTHER)
    with pytest.raises(MalformedRecordError, match="mixed"):
        Baselines(root).load(CLASS)


def test_session_of_history_repeated_is_refused(root: Path) -> None:
    """The same session in two sets is found even though the sets are apart."""
    write_session(root / CLASS, 6, "s1", stack=OTHER)
    with pytest.raises(MalformedRecordError, match="as well"):
        Baselines(root).load(CLASS)


def test_local_stand_in_is_the_last_stack_measured(tmp_path: Path) -> None:
    """Without a committed baseline the newest local sessions of one stack stand in, and say so."""
    local(tmp_path, 2, stack=OTHER)
    local(tmp_path, 3, first=3)
    baseline = Baselines.local(tmp_path / "local" / CLASS)
    assert baseline is not None
    assert [session.id for session in baseline.sessions] == ["local3", "local4", "local5"]
    assert (baseline.label, len(baseline.sessions_of(WORKLOAD))) == ("local", 3)
    assert Baselines.local(tmp_path / "nothing") is None


def test_dirty_local_session_stands_alone(tmp_path: Path) -> None:
    """Two sets of uncommitted changes look alike, so only the last is taken."""
    local(tmp_path, 3, stack=replace(STACK, dirty=True))
    baseline = Baselines.local(tmp_path / "local" / CLASS)
    assert baseline is not None
    assert [session.id for session in baseline.sessions] == ["local3"]
    assert (baseline.label, len(baseline.sessions_of(WORKLOAD))) == ("local", 1)


def test_unreadable_local_session_is_named(tmp_path: Path) -> None:
    """A damaged local file is refused by name, not passed over."""
    path = local(tmp_path, 2)[1]
    path.write_text("{")
    with pytest.raises(MalformedRecordError, match=path.name):
        Baselines.local(path.parent)


def test_promote_copies_all_byte_for_byte(tmp_path: Path, root: Path) -> None:
    """Promotion of a new commit adds its files under the next numbers and changes none."""
    before = contents(root / CLASS)
    paths = Baselines(root).promote(local(tmp_path, stack=OTHER))
    assert [path.name for path in paths] == [f"{number:04}_ffffffffffff.json" for number in range(6, 11)]
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in local(tmp_path, stack=OTHER)]
    assert {name: data for name, data in contents(root / CLASS).items() if name in before} == before
    assert Baselines(root).require(CLASS).stack == OTHER


def test_promote_extends_the_reference(tmp_path: Path, root: Path) -> None:
    """More sessions of the same commit and stack join its set, so one more is enough."""
    Baselines(root).promote(local(tmp_path, 1))
    assert len(Baselines(root).require(CLASS).sessions) == 6


def test_promote_repeated_finishes_what_was_cut_short(tmp_path: Path) -> None:
    """Sessions already there are left out, so the same command again completes a promotion."""
    files, baselines = local(tmp_path), Baselines(tmp_path / "b")
    baselines.promote(files[:2], min_sessions=2)
    assert len(baselines.promote(files)) == 3
    assert len(baselines.require(CLASS).sessions) == 5
    with pytest.raises(UsageError, match="already"):
        baselines.promote(files)


def _changed(path: Path, where: str, value: object) -> Path:
    path.write_bytes(edited(path.read_bytes(), where, value))
    return path


def _busy(path: Path) -> Path:
    return _changed(path, "machine_info.gemma3n_perf.busy", "ninja (50)")


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda files: [], UsageError, "no session file"),
        (lambda files: files[:4], UsageError, "4 sessions"),
        (lambda files: [*files, files[0]], NotComparableError, "there twice"),
        (lambda files: [*files, files[0].parent / "absent.json"], MalformedRecordError, "absent.json"),
        (lambda files: [*files, write_session(files[0].parent, 9, planted=0.1)], NotComparableError, "planted"),
        (lambda files: [*files, _busy(write_session(files[0].parent, 9))], NotComparableError, "ninja"),
        (
            lambda files: [*files, write_session(files[0].parent, 9, stack=replace(STACK, dirty=True))],
            NotComparableError,
            "uncommitted",
        ),
        (
            lambda files: [*files, write_session(files[0].parent, 9, stack=replace(STACK, commit=None, dirty=None))],
            NotComparableError,
            "commit is unknown",
        ),
        (lambda files: [*files, write_session(files[0].parent, 9, stack=OTHER)], NotComparableError, "commit: "),
        (
            lambda files: [*files, write_session(files[0].parent, 9, chip=replace(CHIP, chip_class="cpu-other-2c"))],
            NotComparableError,
            "cpu-other-2c",
        ),
        (
            lambda files: [_changed(files[0], "benchmarks.0.extra_info.gemma3n_perf.kv_bytes", -1), *files[1:]],
            MalformedRecordError,
            "kv_bytes",
        ),
    ],
)
def test_promote_refuses_and_writes_nothing(
    tmp_path: Path, spoil: Callable[[list[Path]], list[Path]], error: type[PerfError], said: str
) -> None:
    """Whatever is wrong with one file, none is promoted."""
    root = tmp_path / "b"
    with pytest.raises(error) as caught:
        Baselines(root).promote(spoil(local(tmp_path)))
    assert said in caught.value.found
    assert contents(root / CLASS) == {}


def test_promote_to_superseded_commit_is_refused(tmp_path: Path, root: Path) -> None:
    """Sessions of a commit that has been replaced cannot come back on top."""
    baselines = Baselines(root)
    baselines.promote(local(tmp_path, stack=OTHER))
    before = contents(root / CLASS)
    with pytest.raises(NotComparableError, match="a newer commit or stack lie after"):
        baselines.promote(local(tmp_path, 1, first=20))
    assert contents(root / CLASS) == before


def test_promote_changed_copy_of_a_session_is_refused(tmp_path: Path) -> None:
    """A session already committed cannot be promoted again with other numbers in it."""
    files, baselines = local(tmp_path), Baselines(tmp_path / "b")
    baselines.promote(files)
    files[0].write_bytes(encode(document("local1", measurement(tpot_s=0.005))))
    with pytest.raises(NotComparableError, match="differ"):
        baselines.promote(files)


def test_promote_on_a_full_disk_writes_nothing(tmp_path: Path, root: Path) -> None:
    """A disk that fills up during promotion leaves the baseline as it was."""
    before = contents(root / CLASS)
    with pytest.raises(DiskFullError):
        Baselines(root).promote(local(tmp_path, stack=OTHER), disk=FullDisk(3))
    assert contents(root / CLASS) == before
