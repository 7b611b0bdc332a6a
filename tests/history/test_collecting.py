import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.history import asv_files
from gemma3n_perf.history.asv_files import RATE, read_result
from gemma3n_perf.history.collecting import Collected, collect, commits
from gemma3n_perf.history.results import ENV, ResultFile, Value, value_of
from tests.fakes import CHIP, COMMIT, STACK, WORKLOAD, measurement, write_session
from tests.history.replay import write
from tests.rehearsal.upstream import git

OTHER = "f" * 40
DATES = {COMMIT: 5000}


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


def run(sessions: Path, results: Path, dates: Mapping[str, int] = DATES) -> Collected:
    """Import one folder, its one commit known."""
    found = collect(results, [sessions], dates)
    asv_files.write(results, found.additions, found.machines.values())
    return found


def only(results: Path) -> ResultFile:
    """Read the one result file there is."""
    (path,) = asv_files.result_files(results)
    return read_result(path)


def test_a_session_becomes_a_result(sessions: Path, results: Path) -> None:
    """Time per token with its raw samples, tok/s beside it, dated by its commit."""
    write_session(sessions, 1)
    assert run(sessions, results).counts["created"] == 1
    found = only(results)
    assert (found.commit, found.date, found.params) == (COMMIT, 5000, asv_files.machine_axes(CHIP))
    value = found.times[WORKLOAD]
    assert value.result == pytest.approx(0.01)
    assert value.samples == pytest.approx((0.0099, 0.01, 0.0101))
    (path,) = asv_files.result_files(results)
    assert json.loads(path.read_bytes())["results"][RATE][0] == [pytest.approx(100.0)]
    assert asv_files.read_benchmarks(results) == (WORKLOAD,)


def test_importing_again_changes_nothing(sessions: Path, results: Path) -> None:
    """Not a byte, nor a time of change."""
    for number in (1, 2, 3):
        write(sessions, number, measurement(tpot_s=0.01 * number))
    run(sessions, results)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in asv_files.result_files(results)}
    again = run(sessions, results)
    assert again.counts == {"sessions": 3, "unchanged": 1, "pooled": 1}
    assert again.additions == ()
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_sessions_of_one_commit_are_pooled(sessions: Path, results: Path) -> None:
    """All runs are samples; the value is the median of the sessions' medians, its interval from their spread."""
    for number, tpot_s in enumerate((0.010, 0.011, 0.0105), 1):
        write(sessions, number, measurement(tpot_s=tpot_s))
    assert run(sessions, results).counts["pooled"] == 1
    value = only(results).times[WORKLOAD]
    assert len(value.samples) == 9
    assert value.result == pytest.approx(0.0105)
    assert value.low < 0.0100
    assert value.high > 0.0110


def test_a_session_that_comes_later_is_added(sessions: Path, results: Path) -> None:
    """To what was there, as if both had been imported at once."""
    write(sessions, 1, measurement(tpot_s=0.01))
    run(sessions, results)
    write(sessions, 2, measurement(tpot_s=0.02))
    assert run(sessions, results).counts["changed"] == 1
    assert only(results).times[WORKLOAD].result == pytest.approx(0.015)


def test_nothing_of_an_existing_result_is_lost(sessions: Path, results: Path) -> None:
    """Samples that asv measured itself stay, as a session of their own, and so do other workloads and benchmarks."""
    write(sessions, 1, measurement(tpot_s=0.01))
    run(sessions, results)
    (path,) = asv_files.result_files(results)
    data = json.loads(path.read_bytes())
    data["results"]["decode.track_old_name"] = [[1.0], [["'x'"]], "7"]
    path.write_text(json.dumps(data))
    old = read_result(path)
    times = old.times | {"e2b-4bit/text/pp4-tg4": Value(2.0, (2.0,)), WORKLOAD: Value(0.5, (0.5, 0.5))}
    asv_files.write_result(results, replace(old, times=times))
    run(sessions, results)
    found = only(results)
    assert found.times[WORKLOAD].samples[:2] == (0.5, 0.5)
    assert len(found.times[WORKLOAD].samples) == 5
    assert found.times["e2b-4bit/text/pp4-tg4"].result == 2.0
    assert "decode.track_old_name" in found.others


def test_half_a_result_file_is_named_and_kept(sessions: Path, results: Path) -> None:
    """And the other commits are imported."""
    write(sessions, 1, measurement())
    write(sessions, 2, measurement(tpot_s=0.02), replace(STACK, commit=OTHER))
    run(sessions, results)
    broken = next(path for path in asv_files.result_files(results) if path.name.startswith(COMMIT[:8]))
    broken.write_bytes(broken.read_bytes()[:100])
    again = run(sessions, results)
    (left_out,) = again.left_out
    assert str(broken) in left_out
    assert len(broken.read_bytes()) == 100
    assert again.counts["unchanged"] == 1


def test_two_commits_that_share_a_name_are_not_mixed(sessions: Path, results: Path) -> None:
    """asv names files by eight letters of a commit."""
    twin = COMMIT[:8] + "0" * 32
    write(sessions, 1, measurement())
    write(sessions, 2, measurement(tpot_s=0.02), replace(STACK, commit=twin))
    found = run(sessions, results)
    assert len(found.left_out) == 1
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
    (left_out,) = found.left_out
    assert bad.name in left_out
    assert reason in left_out
    assert found.counts["sessions"] == found.counts["created"] == 1


def test_files_that_are_no_sessions_are_named(sessions: Path, results: Path) -> None:
    """Half a session is; other records of the class are left alone in silence."""
    path = write_session(sessions, 1)
    (sessions / "0002_0123456789ab.json").write_bytes(path.read_bytes()[:500])
    (sessions / "noise.json").write_text("{}")
    found = run(sessions, results)
    (left_out,) = found.left_out
    assert "0002_0123456789ab.json" in left_out
    assert found.counts["created"] == 1


def test_one_session_in_two_places_counts_once(sessions: Path, results: Path) -> None:
    """As when it was promoted from this machine's own; with other content it is named."""
    write_session(sessions, 1, "same")
    write_session(sessions, 2, "same")
    assert run(sessions, results).counts["sessions"] == 1
    write(sessions, 3, measurement(tpot_s=0.5))
    data = (sessions / "0003_0123456789ab.json").read_text().replace(f"{CHIP.chip_class}-3", "same")
    (sessions / "0003_0123456789ab.json").write_text(data)
    assert "differs" in run(sessions, results).left_out[0]


def test_a_commit_rebased_away_is_kept_and_noted(sessions: Path, results: Path) -> None:
    """It is dated by its session."""
    write_session(sessions, 1)
    found = run(sessions, results, {})
    assert found.counts["created"] == 1
    assert COMMIT[:12] in found.notes[0]
    assert only(results).date > 1_600_000_000_000


def test_a_clock_that_jumped_back_stops_nothing(sessions: Path, results: Path) -> None:
    """A session recorded before 1970, or at no time at all."""
    path = write_session(sessions, 1)
    path.write_text(path.read_text().replace("2026-07-03T10:00:00+00:00", "0001-01-01T00:00:00"))
    assert run(sessions, results, {}).counts["created"] == 1
    path.write_text(path.read_text().replace("0001-01-01T00:00:00", "yesterday"))
    assert run(sessions, results).counts["sessions"] == 1


def test_two_mlx_of_one_commit_are_not_mixed(sessions: Path, results: Path) -> None:
    """The newest counts, the other is said."""
    write(sessions, 1, measurement(tpot_s=0.01), replace(STACK, mlx="0.31.0"))
    write(sessions, 2, measurement(tpot_s=0.02))
    found = run(sessions, results)
    assert "other mlx" in found.notes[0]
    assert only(results).times[WORKLOAD].result == pytest.approx(0.02)


def test_updates_of_python_and_system_start_no_series(sessions: Path, results: Path) -> None:
    """Both sessions are one result of one machine."""
    write(sessions, 1, measurement(tpot_s=0.01))
    write(sessions, 2, measurement(tpot_s=0.02), replace(STACK, python="3.13.1", os="macOS 27.1"))
    run(sessions, results)
    assert len(only(results).times[WORKLOAD].samples) == 6


def test_a_single_session_has_no_bounded_interval() -> None:
    """Its runs share what disturbed it, so asv is told that it cannot tell."""
    value = value_of([[0.01, 0.011, 0.012]])
    assert (value.low, value.high) == (-math.inf, math.inf)


def test_throughput_turns_the_interval_round() -> None:
    """The slow end of time is the low end of tok/s."""
    assert Value(0.01, (0.01,), 0.008, 0.02).inverse() == Value(100.0, (100.0,), 50.0, 125.0)
    assert Value(None).inverse() == Value(None)


def result(commit: str = COMMIT, env: str = ENV, **values: Value) -> ResultFile:
    """Return a result file of one commit."""
    times = {WORKLOAD: Value(0.01, (0.01,))} | {f"nano/text/{name}": value for name, value in values.items()}
    return ResultFile(CHIP.chip_class, commit, 5, asv_files.machine_axes(CHIP), times, env=env)


def stored(tmp_path: Path, *files: ResultFile) -> Path:
    """Write result files and their machine."""
    asv_files.write(tmp_path, files, [asv_files.machine_axes(CHIP)])
    return tmp_path


def read(results: Path) -> Collected:
    """Read what is stored, without any session."""
    return collect(results, [], DATES)


def test_what_asv_run_recorded_joins_the_series(tmp_path: Path) -> None:
    """Its Python version is an axis of asv's own, which would split the line at every update."""
    own = result(env="existing-py3.13", more=Value(2.0, (2.0, 2.1)))
    own = replace(own, params=own.params | {"python": "3.13"})
    found = read(stored(tmp_path, result(), own))
    (one,) = found.results
    assert one.params == asv_files.machine_axes(CHIP)
    assert one.env == ENV
    assert one.times.keys() == {WORKLOAD, "nano/text/more"}


def test_a_machine_without_its_file_is_named_and_left(tmp_path: Path) -> None:
    """The others are staged."""
    folder = stored(tmp_path, result())
    stray = folder / "nobody" / "0123abcd-suite.json"
    stray.parent.mkdir()
    stray.write_bytes(asv_files.encode_result(result()))
    found = read(folder)
    assert len(found.results) == 1
    assert "nobody" in found.left_out[0]
    assert stray.exists()


def test_files_that_are_no_results_are_named_and_left(tmp_path: Path) -> None:
    """Half a file, a list, and results of another machine."""
    folder = stored(tmp_path, result()) / CHIP.chip_class
    (folder / "a-suite.json").write_text("[]")
    (folder / "b-suite.json").write_bytes(asv_files.encode_result(result())[:50])
    data = asv_files.encode_result(result()).replace(b'"machine":"cpu-fake-2c"', b'"machine":"other"')
    (folder / "c-suite.json").write_bytes(data)
    found = read(tmp_path)
    assert len(found.results) == 1
    assert len(found.left_out) == 3
    assert len(list(folder.iterdir())) == 5


def test_a_renamed_benchmark_is_named_and_kept(tmp_path: Path) -> None:
    """Its row stays in the result file, and its commit's other results are used."""
    folder = stored(tmp_path, result())
    (path,) = asv_files.result_files(folder)
    data = json.loads(path.read_bytes())
    data["results"]["decode.track_old_name"] = [[1.0], [["'x'"]], "1"]
    path.write_text(json.dumps(data))
    found = read(folder)
    assert "decode.track_old_name" in found.notes[0]
    assert len(found.results) == 1
    assert "decode.track_old_name" in json.loads(path.read_bytes())["results"]


def test_results_of_commits_that_are_gone_are_named(tmp_path: Path) -> None:
    """As after a rebase."""
    (note,) = read(stored(tmp_path, result(), result(OTHER))).notes
    assert OTHER[:12] in note


def test_a_subject_may_hold_any_character(tmp_path: Path) -> None:
    """Also those at which Python would break a line."""
    git(tmp_path, "init", "--quiet")
    subject = "a\u2028b\x0cc\x85d"
    git(tmp_path, "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--allow-empty", "-m", subject)
    found = commits(tmp_path, run_command)
    assert list(found.subjects.values()) == [subject]
