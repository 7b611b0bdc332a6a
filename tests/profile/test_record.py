"""Profiles as stored: part by part, whole each time, one stack."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import DiskFullError, MalformedRecordError, NotComparableError
from gemma3n_perf.profile import record as profiles
from gemma3n_perf.profile.types import Missing
from gemma3n_perf.store.files import Disk
from tests.fakes import CHIP, STACK, WORKLOAD, edited
from tests.profile.made import histogram, profile, split, trace, whole, workload


def test_a_profile_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Every part, typed, in the class's own file."""
    made = profile()
    path = profiles.PROFILES.write(profiles.profile_path(tmp_path, CHIP.chip_class), made)
    assert path == tmp_path / CHIP.chip_class / "profile.json"
    assert profiles.read_class(tmp_path, CHIP.chip_class) == made
    assert profiles.read_all(tmp_path) == (made,)
    assert profiles.read_class(tmp_path, "another") is None


def test_a_part_is_added_to_what_is_there() -> None:
    """The new part replaces its older self and nothing else; another workload stands beside."""
    old = profile(workload(histogram=histogram(), trace=trace(0.006)))
    newer = workload(trace=trace(0.009))
    found = profiles.merged(old, profile(newer, workload("nano/text/pp140-tg64", histogram=histogram())))
    assert [one.workload for one in found.workloads] == [WORKLOAD, "nano/text/pp140-tg64"]
    assert found.workloads[0].trace == newer.trace
    assert found.workloads[0].histogram == histogram()
    assert set(found.workloads[0].taken) == {"histogram", "trace"}


def test_a_part_that_now_fails_is_missing_and_its_old_figure_gone() -> None:
    """An old figure beside today's others would be a figure of another day."""
    lost = replace(workload(), missing=(Missing("trace", "no driver"),))
    found = profiles.merged(profile(workload(histogram=histogram(), trace=trace(0.006))), profile(lost)).workloads[0]
    assert found.trace is None
    assert [one.part for one in found.missing] == ["trace"]
    assert "trace" not in found.taken
    again = profiles.merged(profile(found), profile(workload(trace=trace(0.007)))).workloads[0]
    assert again.missing == ()
    assert again.trace == trace(0.007)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"mlx": "0.33.0"}, "mlx"), ({"driver": "600.1"}, "driver"), ({"knobs": {"MLX_A": "1"}}, "knobs")],
)
def test_parts_of_two_stacks_are_refused(changes: dict[str, Any], said: str) -> None:
    """One table of several versions is what this suite must make impossible."""
    with pytest.raises(NotComparableError, match=said) as caught:
        profiles.merged(profile(), profile(stack=replace(STACK, **changes)))
    assert "--fresh" in str(caught.value)


def test_a_new_commit_of_the_suite_may_add_parts() -> None:
    """The parts say at which commit they were measured."""
    assert profiles.merged(profile(), profile(stack=replace(STACK, commit="f" * 40, dirty=True)))


def test_another_checkpoint_or_chip_is_refused() -> None:
    """The same name with other bytes is another workload."""
    other = replace(workload(histogram=histogram()), checkpoint_digest="forged:2")
    with pytest.raises(NotComparableError, match="checkpoint"):
        profiles.merged(profile(), profile(other))
    with pytest.raises(NotComparableError, match="chip class"):
        profiles.merged(profile(), profile(chip=replace(CHIP, chip_class="cpu-other")))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("schema", 9, "schema 9"),
        ("workloads.0.workload", "nano", "not understood"),
        ("workloads.0.split.exposed.low", "much", "exposed"),
        ("workloads.0.taken", {}, "does not say when"),
        ("workloads.0.missing", [{"part": "split", "reason": "x"}], "both measured and missing"),
        ("workloads.0.missing", [{"part": "sorcery", "reason": "x"}], "no part"),
    ],
)
def test_a_damaged_profile_is_named_and_left_alone(tmp_path: Path, place: str, value: Any, said: str) -> None:
    """The place and the fault are said; nothing is overwritten."""
    path = tmp_path / "profile.json"
    damaged = edited(profiles.PROFILES.encode(profile()), place, value)
    path.write_bytes(damaged)
    with pytest.raises(MalformedRecordError, match=said):
        profiles.PROFILES.find(path)
    assert path.read_bytes() == damaged


def test_text_that_is_no_json_or_of_another_class_is_refused(tmp_path: Path) -> None:
    """Truncated files and misplaced ones."""
    path = profiles.profile_path(tmp_path, "cpu-other")
    profiles.PROFILES.write(path, profile())
    with pytest.raises(NotComparableError, match="cpu-fake-2c"):
        profiles.read_class(tmp_path, "cpu-other")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(MalformedRecordError):
        profiles.PROFILES.find(path)


class FullDisk(Disk):
    """Has no room."""

    def write(self, path: Path, data: bytes) -> None:
        """Fail as a full disk does."""
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_the_last_profile(tmp_path: Path) -> None:
    """Whole or not at all."""
    path = profiles.PROFILES.write(tmp_path / "profile.json", profile())
    before = path.read_bytes()
    with pytest.raises(DiskFullError):
        profiles.PROFILES.write(path, profile(workload(split=split(0.1, 0.1, 0.1, 0.5, "mixed"))), FullDisk())
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["profile.json"]


def test_a_whole_profile_is_json_that_others_can_read() -> None:
    """Plain objects, indented, base units."""
    tree = json.loads(profiles.PROFILES.encode(profile(whole())))
    assert tree["workloads"][0]["split"]["pipelined"]["tpot_s"]["value"] == pytest.approx(0.02801)
