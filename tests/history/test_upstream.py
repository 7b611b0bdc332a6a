import lzma
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import point_record, upstream
from gemma3n_perf.history.changes import without_places
from gemma3n_perf.history.point_record import Blocks, Point, day
from gemma3n_perf.history.upstream import build, version_key
from tests.fakes import CHIP, STACK, WORKLOAD

OLD = replace(STACK, mlx="0.31.0")
POINT = Point(
    1, "2026-07-01T10:00:00+00:00", CHIP, "mlx", "0.31.0", WORKLOAD, STACK, OLD, 12.0, "loss", -0.2, -0.22, -0.18,
    (Blocks(4.0, 7, (0.020, 0.021, 0.019), (0.025, 0.026, 0.024)),), None, "2026-02-27",
)  # fmt: skip
FAILED = replace(
    POINT, version="0.30.0", stack=None, verdict="not-measured", effect=None, low=None, high=None, launches=(),
    failure="no wheel",
)  # fmt: skip


def test_round_trip(tmp_path: Path) -> None:
    """Points and failures are read back from where they belong, and nothing else is."""
    for one in (POINT, FAILED):
        path = point_record.write(tmp_path, one)
        assert path == tmp_path / CHIP.chip_class / "history" / "mlx" / f"{one.version}.json.xz"
    found, faults = point_record.read_class(tmp_path, CHIP.chip_class)
    assert sorted(found, key=lambda one: one.version) == [FAILED, POINT]
    assert faults == ()


def test_a_plain_point_of_an_older_release_is_read_once_and_replaced(tmp_path: Path) -> None:
    """Of both forms of a version the compressed one counts, and writing takes the plain one away."""
    path = point_record.write(tmp_path, POINT)
    plain = path.with_suffix("")
    plain.write_bytes(lzma.decompress(path.read_bytes()))
    assert point_record.read(plain) == POINT
    assert point_record.read_class(tmp_path, CHIP.chip_class) == ((POINT,), ())
    path.unlink()
    assert point_record.measured(path)
    assert point_record.read_class(tmp_path, CHIP.chip_class) == ((POINT,), ())
    point_record.write(tmp_path, POINT)
    assert path.is_file()
    assert not plain.exists()


def test_times_are_anchored_to_todays() -> None:
    """A release 20 % slower than today's 20 ms takes 25 ms; a failure has no value; the order is the versions'."""
    series = upstream.placed([POINT, FAILED])
    failed, (_, slow) = series["mlx", WORKLOAD]
    assert (failed[0].version, failed[1].result) == ("0.30.0", None)
    assert slow.result == pytest.approx(0.025)
    assert slow.low == pytest.approx(0.020 / 0.82)
    assert slow.high == pytest.approx(0.020 / 0.78)
    assert slow.samples == pytest.approx((0.025,))


def test_an_older_anchor_is_chained_through_its_own_point() -> None:
    """0.30.0 was half as fast as 0.31.0, which is a fifth slower than today's."""
    older = replace(POINT, version="0.30.0", anchor=OLD, effect=-0.5, low=-0.5, high=-0.5, date="2026-05-01T10:00:00")
    (_, first), _ = upstream.placed([POINT, older])["mlx", WORKLOAD]
    assert first.result == pytest.approx(0.020 / (0.8 * 0.5))


def test_a_point_that_nothing_links_is_left_out() -> None:
    """Better a gap than a made-up value."""
    stranger = replace(POINT, version="0.29.0", anchor=replace(STACK, mlx="0.30.5"), date="2026-05-01T10:00:00")
    assert [point.version for point, _ in upstream.placed([POINT, stranger])["mlx", WORKLOAD]] == ["0.31.0"]


@pytest.mark.parametrize(
    "one",
    [
        replace(POINT, schema=2),
        replace(POINT, line="torch"),
        replace(POINT, verdict="great"),
        replace(POINT, failure="and a value"),
        replace(POINT, launches=()),
        replace(POINT, effect=-1.0),
        replace(FAILED, failure=None),
        replace(POINT, launches=(Blocks(4.0, 7, (0.02,), ()),)),
        replace(POINT, launches=(Blocks(4.0, 7, (0.02,), (0.0,)),)),
        replace(POINT, date="yesterday"),
        replace(POINT, date="2026-05-01T10:00:00"),
        replace(POINT, released="someday"),
    ],
)
def test_a_point_that_is_wrong_is_refused(tmp_path: Path, one: Point) -> None:
    """Before it is written."""
    with pytest.raises(MalformedRecordError):
        point_record.write(tmp_path, one)
    assert list(tmp_path.rglob("*.json*")) == []


def test_files_that_are_no_points_are_named_and_the_rest_read(tmp_path: Path) -> None:
    """Half a file, and one under another name."""
    path = point_record.write(tmp_path, POINT)
    path.with_name("0.32.0.json.xz").write_bytes(path.read_bytes())
    path.with_name("0.33.0.json.xz").write_bytes(path.read_bytes()[:50])
    found, faults = point_record.read_class(tmp_path, CHIP.chip_class)
    assert found == (POINT,)
    assert len(faults) == 2


def test_versions_are_ordered_by_number() -> None:
    """0.9.1 comes before 0.10.0."""
    assert sorted(["0.10.0", "0.9.1", "0.9.10"], key=upstream.version_key) == ["0.9.1", "0.9.10", "0.10.0"]


def test_days_of_releases_are_the_tags() -> None:
    """An unknown one has none."""
    assert day("mlx", "0.31.0") == "2026-02-27"
    assert day("mlx", "99.0") is None


LINES: dict[str, dict[str, str | None]] = {
    "mlx": {"0.30.0": "2025-11-19", "0.31.0": None, "0.32.0": "2025-01-01"},
    "mlx-vlm": {"0.6.0": "2026-06-01"},
}


def test_releases_become_the_same_commits_everywhere(tmp_path: Path) -> None:
    """One branch a line in the order given, and the same hashes whoever builds it."""
    made = build(tmp_path / "a", LINES, run_command)
    assert made == build(tmp_path / "b" / "c", LINES, run_command)
    listed = run_command(("git", "-C", str(tmp_path / "a"), "log", "--reverse", "--format=%H %s", "mlx"), 60.0).out
    assert [line.split(maxsplit=1)[1] for line in listed.splitlines()] == ["mlx 0.30.0", "mlx 0.31.0", "mlx 0.32.0"]
    assert [line.split()[0] for line in listed.splitlines()] == [made["mlx", version][0] for version in LINES["mlx"]]


def test_days_that_run_backwards_do_not_turn_the_order(tmp_path: Path) -> None:
    """Nor does one that nobody knows."""
    made = build(tmp_path / "a", LINES, run_command)
    dates = [made["mlx", version][1] for version in LINES["mlx"]]
    assert dates == sorted(dates)
    assert len(set(dates)) == 3


def test_words_of_a_failure_name_no_place_of_one_machine() -> None:
    """Neither folders nor addresses; workloads, which have slashes too, stay."""
    said = "nano/text/pp40-tg64: cannot load /home/me/.cache/nano-v1: see https://index.example/simple/mlx (x)"
    assert without_places(said) == "nano/text/pp40-tg64: cannot load nano-v1: see (an address) (x)"


def test_a_superscript_is_no_number() -> None:
    """Python calls it a digit, and int() does not read it."""
    assert version_key("1.\u00b2") < version_key("1.0")


@pytest.mark.parametrize("version", ["../x", "v0.7/..", "a b", "", "-x", "1..2", "x.lock", "\u00b2"])
def test_a_version_that_names_no_file_is_none(version: str) -> None:
    """Records and tags are called so."""
    assert not point_record.is_version(version)
    assert all(map(point_record.is_version, ("0.32.4", "v0.7.10", "0.32.0.dev1+x", "a" * 40)))
