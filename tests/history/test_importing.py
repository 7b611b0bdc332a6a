import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.history import asv_files
from gemma3n_perf.history.asv_files import RATE, TIME, Value, read_result
from gemma3n_perf.history.importing import Imported, gather, import_sessions, rate_of, value_of
from tests.fakes import CHIP, COMMIT, STACK, WORKLOAD, measurement, write_session
from tests.history.replay import write

OTHER = "f" * 40


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """The folder of the fakes' chip class."""
    folder = tmp_path / CHIP.chip_class
    folder.mkdir()
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Where asv's results go."""
    return tmp_path / "results"


def run(sessions: Path, results: Path) -> Imported:
    """Import one folder, its one commit known."""
    return import_sessions(results, gather([sessions]), {COMMIT: 5000})


def only(results: Path) -> asv_files.ResultFile:
    """Read the one result file there is."""
    (path,) = asv_files.result_files(results)
    return read_result(path)


def test_a_session_becomes_a_result(sessions: Path, results: Path) -> None:
    """Time per token with its raw samples, tok/s beside it, dated by its commit."""
    write_session(sessions, 1)
    assert run(sessions, results).created == 1
    found = only(results)
    assert (found.commit, found.date, found.params) == (COMMIT, 5000, asv_files.machine(CHIP))
    value = found.entries[TIME].values[WORKLOAD]
    assert value.result == pytest.approx(0.01)
    assert value.samples == pytest.approx((0.0099, 0.01, 0.0101))
    assert found.entries[RATE].values[WORKLOAD].result == pytest.approx(100.0)
    assert asv_files.read_benchmarks(results) == (WORKLOAD,)


def test_importing_again_changes_nothing(sessions: Path, results: Path) -> None:
    """Not a byte, nor a time of change."""
    for number in (1, 2, 3):
        write(sessions, number, measurement(tpot_s=0.01 * number))
    run(sessions, results)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in asv_files.result_files(results)}
    assert run(sessions, results) == Imported(3, 0, 0, 1, 1)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_sessions_of_one_commit_are_pooled(sessions: Path, results: Path) -> None:
    """All runs are samples; the value is the median of the sessions' medians, its interval from their spread."""
    for number, tpot_s in enumerate((0.010, 0.011, 0.0105), 1):
        write(sessions, number, measurement(tpot_s=tpot_s))
    assert run(sessions, results).merged == 1
    value = only(results).entries[TIME].values[WORKLOAD]
    assert len(value.samples) == 9
    assert value.result == pytest.approx(0.0105)
    assert value.low < 0.0100
    assert value.high > 0.0110


def test_a_session_that_comes_later_is_added(sessions: Path, results: Path) -> None:
    """To what was there, as if both had been imported at once."""
    write(sessions, 1, measurement(tpot_s=0.01))
    run(sessions, results)
    write(sessions, 2, measurement(tpot_s=0.02))
    assert run(sessions, results).changed == 1
    assert only(results).entries[TIME].values[WORKLOAD].result == pytest.approx(0.015)


def test_nothing_of_an_existing_result_is_lost(sessions: Path, results: Path) -> None:
    """Samples that asv measured itself stay, as a session of their own, and so do other workloads and benchmarks."""
    write(sessions, 1, measurement(tpot_s=0.01))
    run(sessions, results)
    (path,) = asv_files.result_files(results)
    data = json.loads(path.read_bytes())
    data["results"]["decode.track_old_name"] = [[1.0], [["'x'"]], "7"]
    path.write_text(json.dumps(data))
    old = read_result(path)
    times = old.entries[TIME].values | {"e2b-4bit/text/pp4-tg4": Value(2.0, (2.0,)), WORKLOAD: Value(0.5, (0.5, 0.5))}
    entries = old.entries | {TIME: replace(old.entries[TIME], values=times)}
    asv_files.write_result(results, replace(old, entries=entries))
    run(sessions, results)
    found = only(results)
    assert found.entries[TIME].values[WORKLOAD].samples[:2] == (0.5, 0.5)
    assert len(found.entries[TIME].values[WORKLOAD].samples) == 5
    assert found.entries[TIME].values["e2b-4bit/text/pp4-tg4"].result == 2.0
    assert "decode.track_old_name" in found.others


def test_half_a_result_file_is_named_and_kept(sessions: Path, results: Path) -> None:
    """And the other commits are imported."""
    write(sessions, 1, measurement())
    write(sessions, 2, measurement(tpot_s=0.02), replace(STACK, commit=OTHER))
    run(sessions, results)
    broken = next(path for path in asv_files.result_files(results) if path.name.startswith(COMMIT[:8]))
    broken.write_bytes(broken.read_bytes()[:100])
    again = run(sessions, results)
    assert [one.path for one in again.refused] == [broken]
    assert len(broken.read_bytes()) == 100
    assert again.unchanged == 1


def test_two_commits_that_share_a_name_are_not_mixed(sessions: Path, results: Path) -> None:
    """asv names files by eight letters of a commit."""
    twin = COMMIT[:8] + "0" * 32
    write(sessions, 1, measurement())
    write(sessions, 2, measurement(tpot_s=0.02), replace(STACK, commit=twin))
    found = run(sessions, results)
    assert len(found.refused) == 1
    assert only(results).commit == COMMIT


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stack": replace(STACK, dirty=True)}, "uncommitted changes"),
        ({"stack": replace(STACK, dirty=None)}, "uncommitted changes"),
        ({"stack": replace(STACK, commit=None)}, "no commit"),
        ({"planted": 0.1}, "planted"),
        ({"chip": replace(CHIP, chip_class="cpu-fake-unknown")}, "not known well enough"),
        ({"chip": replace(CHIP, chip_class="cpu-other")}, "in the folder of cpu-fake-2c"),
    ],
)
def test_what_belongs_to_no_history_is_named(
    sessions: Path, results: Path, changes: dict[str, object], reason: str
) -> None:
    """And the sound session beside it is imported."""
    write_session(sessions, 1, "sound")
    bad = write_session(sessions, 2, "bad", **changes)
    found = run(sessions, results)
    assert [one.path for one in found.refused] == [bad]
    assert reason in found.refused[0].reason
    assert found.sessions == found.created == 1


def test_files_that_are_no_sessions_are_named(sessions: Path, results: Path) -> None:
    """Half a session is; other records of the class are left alone in silence."""
    path = write_session(sessions, 1)
    (sessions / "0002_0123456789ab.json").write_bytes(path.read_bytes()[:500])
    (sessions / "noise.json").write_text("{}")
    found = run(sessions, results)
    assert [one.path.name for one in found.refused] == ["0002_0123456789ab.json"]
    assert found.created == 1


def test_one_session_in_two_places_counts_once(sessions: Path, results: Path) -> None:
    """As when it was promoted from this machine's own; with other content it is named."""
    write_session(sessions, 1, "same")
    write_session(sessions, 2, "same")
    assert run(sessions, results).sessions == 1
    write(sessions, 3, measurement(tpot_s=0.5))
    data = (sessions / "0003_0123456789ab.json").read_text().replace(f"{CHIP.chip_class}-3", "same")
    (sessions / "0003_0123456789ab.json").write_text(data)
    assert "differs" in run(sessions, results).refused[0].reason


def test_a_commit_rebased_away_is_kept_and_noted(sessions: Path, results: Path) -> None:
    """It is dated by its session."""
    write_session(sessions, 1)
    found = import_sessions(results, gather([sessions]), {})
    assert found.created == 1
    assert COMMIT[:12] in found.notes[0]
    assert only(results).date > 1_600_000_000_000


def test_a_clock_that_jumped_back_stops_nothing(sessions: Path, results: Path) -> None:
    """A session recorded before 1970, or at no time at all."""
    path = write_session(sessions, 1)
    path.write_text(path.read_text().replace("2026-07-03T10:00:00+00:00", "0001-01-01T00:00:00"))
    assert import_sessions(results, gather([sessions]), {}).created == 1
    path.write_text(path.read_text().replace("0001-01-01T00:00:00", "yesterday"))
    assert run(sessions, results).sessions == 1


def test_two_mlx_of_one_commit_are_not_mixed(sessions: Path, results: Path) -> None:
    """The newest counts, the other is said."""
    write(sessions, 1, measurement(tpot_s=0.01), replace(STACK, mlx="0.31.0"))
    write(sessions, 2, measurement(tpot_s=0.02))
    found = run(sessions, results)
    assert "other mlx" in found.notes[0]
    assert only(results).entries[TIME].values[WORKLOAD].result == pytest.approx(0.02)


def test_updates_of_python_and_system_start_no_series(sessions: Path, results: Path) -> None:
    """Both sessions are one result of one machine."""
    write(sessions, 1, measurement(tpot_s=0.01))
    write(sessions, 2, measurement(tpot_s=0.02), replace(STACK, python="3.13.1", os="macOS 27.1"))
    run(sessions, results)
    assert len(only(results).entries[TIME].values[WORKLOAD].samples) == 6


def test_a_single_session_has_no_bounded_interval() -> None:
    """Its runs share what disturbed it, so asv is told that it cannot tell."""
    value = value_of([[0.01, 0.011, 0.012]])
    assert (value.low, value.high) == (-math.inf, math.inf)


def test_throughput_turns_the_interval_round() -> None:
    """The slow end of time is the low end of tok/s."""
    assert rate_of(Value(0.01, (0.01,), 0.008, 0.02)) == Value(100.0, (100.0,), 50.0, 125.0)
    assert rate_of(Value(None)) == Value(None)
