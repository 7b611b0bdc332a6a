import argparse
import io
import random
from pathlib import Path

import pytest

from gemma3n_perf.cli import calibrate
from gemma3n_perf.duel import validation_record as power
from gemma3n_perf.errors import NotMeasuredError, UsageError, WorkerFailedError
from gemma3n_perf.store import noise
from tests.duel.arena import Arena, noisy
from tests.duel.duels import machine, opened
from tests.fakes import CHIP, STACK, WORKLOAD


def run(arena: Arena, tmp_path: Path, patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the command on a machine whose duels take place in ``arena``."""

    patch.setattr(calibrate, "machine", lambda *given: opened(machine(arena, tmp_path)))
    patch.setattr(calibrate, "choose_workloads", lambda *given: ((WORKLOAD,), {}))
    parser = argparse.ArgumentParser()
    calibrate.add_arguments(parser)
    out = io.StringIO()
    assert calibrate.run(parser.parse_args(arguments), out) == 0
    return out.getvalue()


def test_a_floor_is_stored_with_every_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each duel uses its whole budget, and the spread is that of the launches."""
    said = run(Arena(noisy(launch_sd=0.004)), tmp_path, monkeypatch, "--duels", "4", "--budget", "30")
    record = noise.read(tmp_path, CHIP.chip_class)
    assert record is not None
    assert len(record.duels) == record.floor.duels == 4
    assert all(sum(duel.seconds) > 24 for duel in record.duels)
    assert record.floor.launch_df == sum(len(duel.log_ratios) - 1 for duel in record.duels)
    assert 0.002 < record.floor.launch_sd < 0.012
    assert said.count(f"of 4, {WORKLOAD}: ") == 4
    assert "noise floor" in said


def test_two_duels_that_agree_say_that_they_are_too_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They give no floor, and no silence either: a limit, a caution, and how many would do."""
    said = run(Arena(), tmp_path, monkeypatch, "--duels", "2", "--budget", "20")
    assert "noise floor 0.00 %" in said
    assert "sessions may still be off by up to " in said
    assert "caution: 2 A/A duels may agree by chance" in said
    assert "next: gemma3n-perf calibrate --duels 8" in said


def test_a_failed_duel_stores_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a calibration is none."""
    arena = Arena(noisy(), raises={("baseline", "block"): WorkerFailedError("it hung")}, from_launch=9)
    with pytest.raises(NotMeasuredError, match="it hung"):
        run(arena, tmp_path, monkeypatch, "--duels", "3", "--budget", "20")
    assert noise.read(tmp_path, CHIP.chip_class) is None


def test_one_duel_shows_no_spread_between_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two or more are asked for."""
    with pytest.raises(UsageError, match="--duels 1"):
        run(Arena(), tmp_path, monkeypatch, "--duels", "1")


def campaign(tmp_path: Path, *rounds: tuple[int, float, str, bool], fused: bool = False) -> None:
    """Record duels: the round, what was planted, the verdict, and whether steps were reported."""
    rng = random.Random(7)

    def duel(number: int, planted: float, verdict: str, reported: bool) -> power.PowerDuel:
        def launch() -> power.PowerLaunch:
            # What a session is off by shows in all of its launches.
            steps = [
                tuple(tuple(slow * rng.gauss(0.02, 0.0002) for _ in range(5)) for _ in range(10))
                for slow in (1.0, (1 + planted) * (1 + number / 100))
            ]
            baseline_s, candidate_s = (tuple(sum(block) / 5 for block in arm) for arm in steps)
            return power.PowerLaunch(4.0, baseline_s, candidate_s, tuple(steps) if reported else ())

        launches = tuple(launch() for _ in range(6))
        truth = 1 / (1 + planted) - 1
        date = f"2026-07-0{number}T10:00:00+00:00"
        arm = "fusion:stacked-altup" if fused else "here"
        return power.PowerDuel(date, None, number, planted, truth, 60.0, verdict, truth, None, None, launches, arm)

    head = power.PowerHead(power.SCHEMA, CHIP, WORKLOAD, STACK)
    power.append(power.power_path(tmp_path, CHIP.chip_class), head, [duel(*one) for one in rounds])


def recorded(tmp_path: Path) -> str:
    """Run the command on a campaign, where nothing can be measured."""
    parser = argparse.ArgumentParser()
    calibrate.add_arguments(parser)
    out = io.StringIO()
    arguments = parser.parse_args(["--recorded", CHIP.chip_class, "--baselines", str(tmp_path)])
    assert calibrate.run(arguments, out) == 0
    return out.getvalue()


def test_a_floor_is_read_from_a_campaign(tmp_path: Path) -> None:
    """From its A/A duels, one a round, that are read as the last one is, not those of fused arms; of the last's day."""
    campaign(
        tmp_path,
        (1, 0.0, "inconclusive", False),
        (2, 0.0, "inconclusive", True),
        (2, 0.0, "inconclusive", True),
        (2, 0.02, "loss", True),
        (3, 0.0, "inconclusive", True),
    )
    campaign(tmp_path, (4, 0.0, "inconclusive", True), (5, 0.0, "no-change", True), fused=True)
    assert "largest of 2 A/A effects 3." in recorded(tmp_path)
    record = noise.read(tmp_path, CHIP.chip_class)
    assert record is not None
    assert [len(duel.log_ratios) for duel in record.duels] == [6, 6]
    averages = [sum(duel.log_ratios) / 6 for duel in record.duels]
    assert averages == pytest.approx([-0.0198, -0.0296], abs=0.003)
    assert record.floor.effect > 0.02
    assert str(record.floor.measured_on) == "2026-07-03"


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([(1, 0.0, "inconclusive", True), (2, 0.0, "no-change", True)], "1 of 2 A/A duels ended with an answer"),
        ([(1, 0.0, "inconclusive", True), (1, 0.0, "inconclusive", True)], "1 A/A duel"),
        ([(1, 0.02, "loss", True), (2, 0.02, "loss", True)], "0 A/A duel"),
    ],
)
def test_a_campaign_that_shows_too_little_noise_is_refused(
    tmp_path: Path, rounds: list[tuple[int, float, str, bool]], said: str
) -> None:
    """Duels that stop at what they see agree better than they should, and those of one round share their processes."""
    campaign(tmp_path, *rounds)
    with pytest.raises(UsageError, match=said):
        recorded(tmp_path)
    assert noise.read(tmp_path, CHIP.chip_class) is None


def test_a_class_without_a_campaign_is_told(tmp_path: Path) -> None:
    """With the file that was looked for."""
    with pytest.raises(UsageError, match=r"there is no .*power\.jsonl"):
        recorded(tmp_path)
