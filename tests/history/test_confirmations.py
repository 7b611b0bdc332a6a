from pathlib import Path

from gemma3n_perf.cli.duel import record
from gemma3n_perf.duel import record as duels
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.history import confirmations
from tests.duel.arena import Arena, noisy
from tests.duel.duels import NOW, asked, machine
from tests.fakes import CHIP, WORKLOAD

BEFORE, AFTER = "a" * 40, "b" * 40


def fought(baselines: Path) -> Path:
    """Fight a duel over a step of 10 % and keep its record."""
    here = machine(Arena(noisy(effect=-0.1)), baselines)
    answer = dueling.duel(asked(f"ref:{BEFORE}", f"ref:{AFTER}"), here, NOW)
    path = confirmations.path_of(baselines, CHIP.chip_class, BEFORE, AFTER)
    duels.write(path, record(answer, here))
    return path


def test_a_duel_is_found_by_its_step(tmp_path: Path) -> None:
    """With both commits in full, its verdict and its size."""
    path = fought(tmp_path)
    assert path == tmp_path / CHIP.chip_class / "history" / "steps" / "aaaaaaaaaaaa-bbbbbbbbbbbb.json"
    found, faults = confirmations.read_all(tmp_path)
    one = found[CHIP.chip_class, WORKLOAD, BEFORE, AFTER]
    assert one.verdict == "loss"
    assert one.effect is not None
    assert -0.12 < one.effect < -0.08
    assert faults == ()


def test_half_a_record_is_named(tmp_path: Path) -> None:
    """And the others are read."""
    path = fought(tmp_path)
    path.with_name("x-y.json").write_bytes(path.read_bytes()[:90])
    found, faults = confirmations.read_all(tmp_path)
    assert len(found) == 1
    assert "x-y.json" in faults[0]
