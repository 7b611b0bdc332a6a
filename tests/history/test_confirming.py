from pathlib import Path

from gemma3n_perf.history import confirming
from tests.duel.arena import Arena, noisy
from tests.duel.duels import machine
from tests.fakes import CHIP, WORKLOAD

BEFORE, AFTER = "a" * 40, "b" * 40


def confirmed(baselines: Path) -> Path:
    """Duel over a step of 10 % and keep its record."""
    here = machine(Arena(noisy(effect=-0.1)), baselines)
    (one,) = confirming.confirm({(BEFORE, AFTER): [WORKLOAD]}, here, 60.0)
    assert one.judgements[WORKLOAD].verdict == "loss"
    return one.path


def test_a_duel_is_found_by_its_step(tmp_path: Path) -> None:
    """With both commits in full, its verdict and its size."""
    path = confirmed(tmp_path)
    assert path == tmp_path / CHIP.chip_class / "history" / "steps" / "aaaaaaaaaaaa-bbbbbbbbbbbb.json"
    found, faults = confirming.read_all(tmp_path)
    one = found[CHIP.chip_class, WORKLOAD, BEFORE, AFTER]
    assert one.verdict == "loss"
    assert one.effect is not None
    assert -0.12 < one.effect < -0.08
    assert faults == ()


def test_half_a_record_is_named(tmp_path: Path) -> None:
    """And the others are read."""
    path = confirmed(tmp_path)
    path.with_name("x-y.json").write_bytes(path.read_bytes()[:90])
    found, faults = confirming.read_all(tmp_path)
    assert len(found) == 1
    assert "x-y.json" in faults[0]
