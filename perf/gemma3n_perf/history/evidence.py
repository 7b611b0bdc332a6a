"""The evidence of fusions that the site shows: every committed record, and what the gate's rules say of it."""

from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.gate.change import parts
from gemma3n_perf.gate.facts import Cell
from gemma3n_perf.gate.recorded import recorded


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fusion's evidence on one chip class: its ``source`` file, and what the gate's rules say of each workload."""

    chip_class: str
    name: str
    source: Path
    cells: tuple[Cell, ...] = ()
    admitted: bool = False

    @property
    def address(self) -> str:
        """Where the file is on the site."""
        return f"evidence/{self.chip_class}/{self.source.name}"


def recorded_evidence(baselines: Path) -> tuple[list[Evidence], list[str]]:
    """Return all committed evidence, the largest effect of each class first, and what was left out of it."""
    faults: list[str] = []
    found = recorded(baselines, lambda error: faults.append(error.found))
    listed = []
    for path, record in found.evidence.items():
        name, chip_class = record.fusion, record.chip.chip_class
        cells = tuple(one for one in found.ruling.cells if (one.fusion, one.chip_class) == (name, chip_class))
        listed.append(Evidence(chip_class, name, path, cells, found.admitted[chip_class] == parts(name)))
    return sorted(listed, key=_place), faults


def _place(one: Evidence) -> tuple[str, float, str]:
    return one.chip_class, -max((cell.effect for cell in one.cells if cell.effect is not None), default=-1.0), one.name
