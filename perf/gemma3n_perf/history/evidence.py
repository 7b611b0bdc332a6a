"""Evidence of fusions as the site shows it: each record with what the gate's rules say of it, and all in one matrix."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.gate.admission import recorded
from gemma3n_perf.gate.change import parts
from gemma3n_perf.gate.facts import Cell
from gemma3n_perf.report import units
from gemma3n_perf.stats.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fusion's evidence on one chip class: its ``source`` file, and what the gate's rules say of each workload."""

    chip_class: str
    name: str
    source: Path
    cells: tuple[Cell, ...]
    admitted: bool

    @property
    def address(self) -> str:
        """Where the file is on the site."""
        return f"evidence/{self.chip_class}/{self.source.name}"


def recorded_evidence(baselines: Path) -> tuple[list[Evidence], list[str]]:
    """Return all committed evidence, the largest effect of each class first, and what was left out of it."""
    faults: list[str] = []
    found = recorded(baselines, faults)
    listed = []
    for path, record in found.evidence.items():
        name, chip_class = record.fusion, record.chip.chip_class
        cells = tuple(one for one in found.ruling.cells if (one.fusion, one.chip_class) == (name, chip_class))
        listed.append(Evidence(chip_class, name, path, cells, found.admitted[chip_class] == parts(name)))

    def place(one: Evidence) -> tuple[str, float, str]:
        largest = max((cell.effect for cell in one.cells if cell.effect is not None), default=-1.0)
        return one.chip_class, -largest, one.name

    return sorted(listed, key=place), faults


def matrix(evidence: Iterable[Evidence]) -> list[tuple[str, dict[str, tuple[str, str, bool]]]]:
    """Return each fusion with what it does on each class that measured it, by its first required workload.

    By class: the text, its kind (win, loss or empty) and whether it is in use there. The largest win comes first.
    """
    found: dict[str, dict[str, tuple[str, str, bool]]] = {}
    best: dict[str, float] = {}
    for one in evidence:
        cell = next((cell for cell in one.cells if cell.required), None)
        if cell is None:
            continue
        kind = cell.verdict.value if cell.verdict is not None and cell.verdict.is_claim else ""
        size = units.percent(cell.effect, 0 if abs(cell.effect or 0.0) >= 1 else 1, sign=True)
        text = {None: "off", Verdict.NOT_MEASURED: "-", Verdict.INVALID: "invalid", Verdict.NO_CHANGE: "same"}.get(
            cell.verdict, size if kind else f"{size}?"
        )
        found.setdefault(one.name, {})[one.chip_class] = (text, kind, one.admitted)
        best[one.name] = max(best.get(one.name, -1.0), (cell.effect or 0.0) if kind == "win" else -1.0)
    return sorted(found.items(), key=lambda item: (-best[item[0]], item[0]))
