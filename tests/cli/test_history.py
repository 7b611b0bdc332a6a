import argparse
import io
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.cli import history
from gemma3n_perf.duel import record as duels
from gemma3n_perf.duel.worktrees import Worktrees
from gemma3n_perf.errors import ArmUnavailableError, BadConditionsError, PerfError, UsageError, WorkerFailedError
from gemma3n_perf.hardware.shell import run_command
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.history import asv_files, point_record, upstream
from tests.duel.arena import Arena, noisy
from tests.duel.duels import machine, opened
from tests.fakes import CHIP, STACK, WORKLOAD, measurement
from tests.history.replay import repository, write


def parsed(*argv: object) -> argparse.Namespace:
    """Read a command line as the program does."""
    parser = argparse.ArgumentParser()
    history.add_arguments(parser)
    return parser.parse_args([str(one) for one in argv])


@pytest.fixture
def places(tmp_path: Path) -> list[object]:
    """Options that keep everything below a scratch folder."""
    return ["--repo", tmp_path / "repo", "--baselines", tmp_path / "baselines", "--results", tmp_path / "results"]


def carried_out(tmp_path: Path, arena: Arena, *argv: object, raises: PerfError | None = None) -> tuple[int, str]:
    """Carry out one action on a machine of fakes; returns its exit code and what it wrote."""
    out = io.StringIO()
    here = machine(arena, tmp_path / "baselines", raises=raises)
    return history.run(parsed(*argv), out, lambda baselines, err: opened(here)), out.getvalue()


def stepped(tmp_path: Path, on: Chip = CHIP) -> list[str]:
    """Write sessions of 16 commits, a third slower from the ninth on."""
    hashes = repository(tmp_path / "repo", 16)
    for place, commit in enumerate(hashes):
        tpot_s = 0.02 * (1.3 if place >= 8 else 1.0) * (1 + 0.002 * (place % 3))
        folder = tmp_path / "baselines" / on.chip_class
        write(folder, place + 1, measurement(tpot_s=tpot_s), replace(STACK, commit=commit), on)
    return hashes


def test_import_and_steps_say_what_they_did(tmp_path: Path, places: list[object]) -> None:
    """Twice the same, and nothing the second time."""
    hashes = stepped(tmp_path)
    (tmp_path / "baselines" / CHIP.chip_class / "0099_0123456789ab.json").write_text("{")
    out = io.StringIO()
    assert history.run(parsed("import", *places), out) == 0
    assert "left out: 0099_0123456789ab.json" in out.getvalue()
    assert "16 sessions: 16 results made" in out.getvalue()
    out = io.StringIO()
    assert history.run(parsed("steps", *places), out) == 0
    assert f"{CHIP.chip_class} {WORKLOAD}: " in out.getvalue()
    assert f"at {hashes[8][:12]}, suspected" in out.getvalue()
    out = io.StringIO()
    history.run(parsed("import", *places), out)
    assert "0 results made, 0 added to, 16 as they were" in out.getvalue()


def test_a_step_is_confirmed_by_a_duel_of_its_commits(tmp_path: Path, places: list[object]) -> None:
    """The record is kept, the exit code is that of a loss, and the step is then confirmed."""
    hashes = stepped(tmp_path)
    code, _ = carried_out(tmp_path, Arena(noisy(effect=-0.23)), "confirm", *places)
    assert code == 1
    path = tmp_path / "baselines" / CHIP.chip_class / "history" / "steps" / f"{hashes[7][:12]}-{hashes[8][:12]}.json"
    assert duels.DUELS.read(path).arms == {"baseline": f"ref:{hashes[7]}", "candidate": f"ref:{hashes[8]}"}
    out = io.StringIO()
    history.run(parsed("steps", *places), out)
    assert f"at {hashes[8][:12]}, confirmed" in out.getvalue()
    code, again = carried_out(tmp_path, Arena(), "confirm", *places)
    assert code == 0
    assert "no step" in again


def test_a_step_that_a_duel_does_not_find_is_refuted(tmp_path: Path, places: list[object]) -> None:
    """Named by hand, with two commits."""
    hashes = stepped(tmp_path)
    assert carried_out(tmp_path, Arena(noisy(launch_sd=0.002)), "confirm", hashes[7], hashes[8][:10], *places)[0] == 0
    out = io.StringIO()
    history.run(parsed("steps", *places), out)
    assert "refuted" in out.getvalue()


@pytest.mark.parametrize("commits", [["abc"], ["no-such-commit", "neither"]])
def test_commits_that_are_none_are_refused(tmp_path: Path, places: list[object], commits: list[str]) -> None:
    """Before anything is measured."""
    repository(tmp_path / "repo", 2)
    with pytest.raises(UsageError, match="commit"):
        carried_out(tmp_path, Arena(), "confirm", *commits, *places)


def follow(
    tmp_path: Path, places: list[object], arena: Arena, *options: object, raises: PerfError | None = None
) -> str:
    """Follow releases of mlx and return what was said."""
    argv = ("upstream", "--line", "mlx", "--workload", WORKLOAD, *options, *places)
    code, text = carried_out(tmp_path, arena, *argv, raises=raises)
    assert code == 0
    return text


def test_releases_are_measured_and_kept(tmp_path: Path, places: list[object]) -> None:
    """A file a version, newest first, and none measured twice."""
    said = follow(tmp_path, places, Arena(noisy(effect=-0.2)), "--versions", "0.31.0,0.31.2")
    assert said.index("0.31.2") < said.index("0.31.0")
    found, faults = point_record.read_class(tmp_path / "baselines", CHIP.chip_class)
    assert faults == ()
    assert {(one.version, one.verdict, one.released) for one in found} == {
        ("0.31.0", "loss", "2026-02-27"),
        ("0.31.2", "loss", "2026-04-21"),
    }
    assert all(one.effect == pytest.approx(-0.2, abs=0.02) and len(one.launches) >= 3 for one in found)
    repository(tmp_path / "repo", 1)
    out = io.StringIO()
    history.run(parsed("import", *places), out)
    assert "2 results of releases" in out.getvalue()
    assert len(asv_files.result_files(tmp_path / "upstream" / "results")) == 2
    again = follow(tmp_path, places, Arena(), "--versions", "0.31.0,0.31.2")
    assert "2 points, 2 with a record" in again
    assert "no-change" not in follow(tmp_path, places, Arena(), "--versions", "0.31.0,0.31.2", "--again", 1)
    again = follow(tmp_path, places, Arena(noisy()), "--versions", "0.31.0,0.31.2", "--again")
    assert "2 points, 0 with a record" in again
    assert "mlx 0.31.0: " in again


def test_a_release_that_cannot_be_built_is_a_recorded_result(tmp_path: Path, places: list[object]) -> None:
    """And the next one is tried."""
    raises = ArmUnavailableError("no wheel of mlx==0.30.0")
    said = follow(tmp_path, places, Arena(), "--versions", "0.30.0,0.30.1", raises=raises)
    assert said.count("not-measured") == 2
    found, _ = point_record.read_class(tmp_path / "baselines", CHIP.chip_class)
    assert [one.failure for one in found] == ["no wheel of mlx==0.30.0"] * 2


def test_a_release_that_cannot_be_loaded_is_a_recorded_result(tmp_path: Path, places: list[object]) -> None:
    """With the worker's words."""
    arena = Arena(raises={("candidate", "load"): WorkerFailedError("cannot import mlx_vlm")})
    follow(tmp_path, places, arena, "--versions", "0.30.0")
    (found,), _ = point_record.read_class(tmp_path / "baselines", CHIP.chip_class)
    assert "cannot import mlx_vlm" in (found.failure or "")


def test_a_bad_moment_is_not_the_releases_fault(tmp_path: Path, places: list[object]) -> None:
    """Nothing is recorded, and it is said how to go on."""
    arena = Arena(raises={("candidate", "block"): BadConditionsError("a compiler ran beside it")})
    said = follow(tmp_path, places, arena, "--versions", "0.30.0")
    assert "no record: try again" in said
    assert point_record.read_class(tmp_path / "baselines", CHIP.chip_class) == ((), ())


def test_the_time_is_kept(tmp_path: Path, places: list[object]) -> None:
    """No point is started after it is up."""
    said = follow(tmp_path, places, Arena(), "--versions", "0.30.0,0.30.1", "--time", "0")
    assert "the time is up: 2 left" in said


def own_commits(folder: Path) -> list[str]:
    """Make a repository of five commits, of which the second and the fourth change what decode runs."""
    hashes = []
    git = ("git", "-C", str(folder), "-c", "user.name=s", "-c", "user.email=s@localhost")
    run_command(("git", "init", "--quiet", "--initial-branch=main", str(folder)), 60.0)
    (folder / "perf/gemma3n_perf/duel").mkdir(parents=True)
    for number in range(5):
        (folder / "notes.md").write_text(str(number))
        if number in (1, 3):
            (folder / "perf/gemma3n_perf/duel/worker.py").write_text(f"SPEED = {number}\n")
        run_command((*git, "add", "-A"), 60.0)
        run_command((*git, "commit", "--quiet", "-m", f"c{number}"), 60.0)
        hashes.append(run_command((*git, "rev-parse", "HEAD"), 60.0).out.strip())
    return hashes


def test_commits_that_changed_decode_meet_the_anchor(tmp_path: Path, places: list[object]) -> None:
    """Those that changed nothing are no points; the anchor stays that of the records, and the history is drawn."""
    hashes = own_commits(tmp_path / "repo")
    here = machine(Arena(noisy(effect=-0.1)), tmp_path / "baselines")
    worktrees = Worktrees(tmp_path / "repo", tmp_path / "cache", run_command)
    here.builder.worktrees = worktrees  # type: ignore[misc]

    def carried(*options: object) -> str:
        out = io.StringIO()
        argv = parsed("commits", "--workload", WORKLOAD, *options, *places)
        assert history.run(argv, out, lambda baselines, err: opened(here)) == 0
        return out.getvalue()

    said = carried("--explain", "--anchor", hashes[0])
    assert f"2 commits changed what decode runs; the anchor is {hashes[0][:12]}" in said
    assert said.splitlines()[-2:] == [hashes[3], hashes[1]]
    assert not (tmp_path / "baselines").exists()
    said = carried("--anchor", hashes[0], "--points", 1)
    assert f"gemma3n-perf {hashes[3][:12]}: loss" in said
    said = carried()
    assert f"the anchor is {hashes[0][:12]}" in said
    assert "2 points, 1 with a record" in said
    found, notes = upstream.read_anchored(tmp_path / "baselines", [CHIP.chip_class])
    points = found[CHIP.chip_class, WORKLOAD]
    assert set(points) == {hashes[3], hashes[1]}
    assert notes == []
    point, value = points[hashes[3]]
    assert (point.anchor.commit, point.released is not None) == (hashes[0], True)
    assert value.result is not None
    assert upstream.read_lines(tmp_path / "baselines", [CHIP.chip_class])[0] == {}


def test_releases_must_be_said(tmp_path: Path, places: list[object]) -> None:
    """From one on, or by name."""
    with pytest.raises(UsageError, match="which releases"):
        follow(tmp_path, places, Arena())


def test_a_version_that_is_none_is_refused_before_it_is_recorded(tmp_path: Path, places: list[object]) -> None:
    """With a clone, too, which is asked for it first when it is measured."""
    for version in ("../../x", "v0.7.99"):
        argv = ("upstream", "--line", "mlx-vlm", "--workload", WORKLOAD, "--clone", tmp_path, "--versions", version)
        with pytest.raises(UsageError):
            carried_out(tmp_path, Arena(), *argv, *places)
    assert not list((tmp_path / "baselines").glob("*/history/**/*.xz"))
