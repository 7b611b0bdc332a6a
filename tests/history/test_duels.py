from pathlib import Path

import pytest

from gemma3n_perf.errors import ArmUnavailableError, UsageError
from gemma3n_perf.history import confirming, duels, point_record
from gemma3n_perf.history.duels import spread
from tests.duel.arena import Arena, noisy
from tests.duel.duels import machine
from tests.fakes import CHIP, WORKLOAD

BEFORE, AFTER = "a" * 40, "b" * 40


def confirmed(baselines: Path) -> Path:
    """Duel over a step of 10 % and keep its record."""
    here = machine(Arena(noisy(effect=-0.1)), baselines)
    ((_, judgements, path),) = confirming.confirm({(BEFORE, AFTER): [WORKLOAD]}, here, 60.0)
    assert judgements[WORKLOAD].verdict == "loss"
    return path


def test_a_duel_is_found_by_its_step(tmp_path: Path) -> None:
    """With both commits in full, its verdict and its size."""
    path = confirmed(tmp_path)
    assert path == tmp_path / CHIP.chip_class / "history" / "steps" / "aaaaaaaaaaaa-bbbbbbbbbbbb.json"
    found, faults = confirming.read_all(tmp_path)
    one, _ = found[CHIP.chip_class, WORKLOAD, BEFORE, AFTER]
    assert one.verdict == "loss"
    assert one.effect is not None
    assert -0.12 < one.effect < -0.08
    assert faults == []


def test_half_a_record_is_named(tmp_path: Path) -> None:
    """And the others are read."""
    path = confirmed(tmp_path)
    path.with_name("x-y.json").write_bytes(path.read_bytes()[:90])
    found, faults = confirming.read_all(tmp_path)
    assert len(found) == 1
    assert "x-y.json" in faults[0]


def test_points_are_spread_with_both_ends() -> None:
    """Evenly, and all where there are few."""
    assert spread(["a", "b", "c", "d", "e"], 3) == ["a", "c", "e"]
    assert spread(["a", "b"], 5) == ["a", "b"]
    assert spread(["a", "b"], 1) == ["b"]
    with pytest.raises(UsageError):
        spread(["a"], 0)


def test_a_point_that_was_measured_outlives_a_try_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot build a release today says nothing of the number that it had."""
    here = machine(Arena(noisy(effect=-0.1)), tmp_path)
    request = duels.Request("mlx", 60.0, WORKLOAD)
    (said,) = duels.follow(request, ["0.32.0"], here)
    assert said.startswith("mlx 0.32.0: loss -")
    path = point_record.path_of(tmp_path, CHIP.chip_class, "mlx", "0.32.0")
    kept = path.read_bytes()

    def unavailable(spec: object, here: object) -> None:
        raise ArmUnavailableError("mlx==0.32.0 cannot be built", expected="its wheels")

    monkeypatch.setattr(duels, "duel", unavailable)
    said, new = duels.follow(request, ["0.32.0", "0.31.0"], here)
    assert "the record that is there stays" in said
    assert path.read_bytes() == kept
    assert new.endswith("0.31.0.json.xz")
    assert point_record.read_class(tmp_path, CHIP.chip_class)[0][0].failure == "mlx==0.32.0 cannot be built"
