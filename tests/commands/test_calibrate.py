import argparse
import io
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf import dueling
from gemma3n_perf.commands import calibrate
from gemma3n_perf.errors import NotMeasuredError, UsageError, WorkerFailedError
from gemma3n_perf.store import noise
from tests.duels import machine, opened
from tests.fakes import CHIP, WORKLOAD
from tests.measure.arena import Arena, noisy


def run(arena: Arena, tmp_path: Path, patch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the command on a machine whose duels take place in ``arena``."""

    def held(baselines: Any, err: Any) -> AbstractContextManager[dueling.Here]:
        return partial(opened, machine(arena, tmp_path))()

    patch.setattr(dueling, "machine", held)
    patch.setattr(calibrate, "chosen", lambda args, here: ((WORKLOAD,), {}))
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
