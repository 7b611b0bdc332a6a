import json
from dataclasses import replace
from pathlib import Path

from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.duel.run import duel, record_of
from gemma3n_perf.history import findings, point_record
from tests.duel.arena import Arena, noisy
from tests.duel.duels import asked, machine
from tests.fakes import CHIP
from tests.history.test_upstream import POINT


def page(baselines: Path) -> tuple[str, list[str]]:
    """Return the page and what was left out."""
    files, faults = findings.build(baselines, (CHIP.chip_class,))
    return files[findings.PAGE].decode(), faults


def test_without_records_nothing_is_claimed(tmp_path: Path) -> None:
    """The commands that would show it stand there."""
    text, faults = page(tmp_path)
    assert faults == []
    assert text.count("No record yet.") == 3
    assert "gemma3n-perf bisect mlx==0.32.0 mlx==0.32.4" in text
    assert " %" not in text.split("95 % interval.")[1].split("## MLX on CUDA")[0]


def test_what_records_say_is_listed(tmp_path: Path) -> None:
    """A duel of two releases, a release that differs from today's, and what studies found by release; no others."""
    here = machine(Arena(noisy(effect=-0.08)), tmp_path)
    result = duel(asked("mlx==0.32.0", "mlx==0.32.1"), here)
    path = tmp_path / CHIP.chip_class / findings.FOLDER / "mlx-0.32.0-0.32.1.json"
    DUELS.write(path, record_of(result, CHIP))
    point_record.write(tmp_path, POINT)
    point_record.write(tmp_path, replace(POINT, version="0.31.1", verdict="no-change"))
    row = {"mlx": "0.32.4", "rows": 2, "k": 64, "error": "not finite", "same": False}
    (tmp_path / CHIP.chip_class / findings.PRODUCTS).write_text(json.dumps([row]))
    row = {"mlx_vlm": "0.7.10", "tokens": 4, "off": "6.5 %", "mended": "1e-06", "greedy": True}
    (tmp_path / CHIP.chip_class / findings.ROTATIONS).write_text(json.dumps([row]))
    text, faults = page(tmp_path)
    assert faults == []
    assert "| mlx==0.32.0 | mlx==0.32.1 | -" in text
    assert "| mlx 0.31.0 | -20.0 % [-22.0, -18.0] |" in text
    assert "0.31.1" not in text
    assert "| 0.32.4 | 2 | 64 | not finite | no |" in text
    assert "| 0.7.10 | 4 | 6.5 % | 1e-06 | yes |" in text


def test_half_a_record_is_named_and_left_out(tmp_path: Path) -> None:
    """Of either kind."""
    folder = tmp_path / CHIP.chip_class / findings.FOLDER
    folder.mkdir(parents=True)
    (folder / "mlx.json").write_text("{")
    (tmp_path / CHIP.chip_class / findings.PRODUCTS).write_text('[{"mlx": 1}]')
    text, faults = page(tmp_path)
    assert len(faults) == 2
    assert text.count("No record yet.") == 3


def test_a_release_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A page of fewer rows would say that no release differs."""
    point_record.write(tmp_path, POINT)
    for path in (tmp_path / CHIP.chip_class).rglob("*.json*"):
        path.write_bytes(path.read_bytes()[:40])
    (tmp_path / CHIP.chip_class / findings.ROTATIONS).write_text("[" * 100_000)
    _, faults = page(tmp_path)
    assert len(faults) == 2
    assert any(findings.ROTATIONS in one for one in faults)
