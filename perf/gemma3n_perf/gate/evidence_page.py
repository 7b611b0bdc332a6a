"""The page of all fusions and what was measured of them, made from the committed evidence and from nothing else.

The same records give the same bytes, so a check can tell whether the page is current. Its text is in ``evidence.md``.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gemma3n_perf.fusions.types import Fusion
from gemma3n_perf.gate.admission import Recorded
from gemma3n_perf.gate.facts import OFF, Cell, Checked, Ruling
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.report import basis, effect, loud, sessions
from gemma3n_perf.report import describe
from gemma3n_perf.report.markdown import escape, table
from gemma3n_perf.report.pages import template
from gemma3n_perf.stats.estimates import relative_change
from gemma3n_perf.stats.messages import percent
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Verdict

PAGE = PurePosixPath("evidence.md")
_HEADER = ("fusion", "workload", "effect [95 %]", "each session", "launches", "verdict", "graph", "logits", "memory")
_LEFT = ("fusion", "workload", "verdict", "graph", "logits")


def build(fusions: Sequence[Fusion], found: Recorded) -> dict[PurePosixPath, bytes]:
    """Return the page by its path below the docs folder."""
    classes = list(dict.fromkeys(cell.chip_class for cell in found.ruling.cells))
    header = ("fusion", "does", "on")
    text = template(Path(__file__).with_name("evidence.md"), cell=escape).render(
        found=found,
        overview=_overview(found.ruling, classes) if found.evidence else "No evidence is committed yet.",
        does=table(header, [(f"`{one.name}`", one.summary, one.where) for one in fusions], left=header),
        classes=[_section(chip_class, found) for chip_class in classes if chip_class in found.admitted],
        basis=basis,
        describe=describe,
        noise=_noise,
    )
    return {PAGE: text.encode()}


def _overview(ruling: Ruling, classes: Sequence[str]) -> str:
    """One line for each fusion, the class's first required workload in each cell, the largest win first."""
    required = {(cell.fusion, cell.chip_class): cell for cell in reversed(ruling.cells) if cell.required}
    names = [one.fusion for one in ruling.decisions]
    best = {name: max(_size(required.get((name, chip_class))) for chip_class in classes) for name in names}
    rows = [
        [f"`{name}`", *(_brief(required.get((name, chip_class))) for chip_class in classes)]
        for name in sorted(names, key=lambda name: (-best[name], name))
    ]
    return table(("fusion", *classes), rows, left=("fusion", *classes))


def _size(cell: Cell | None) -> float:
    return cell.effect if cell is not None and cell.effect is not None and cell.verdict is Verdict.WIN else -1.0


def _brief(cell: Cell | None) -> str:
    if cell is None or cell.verdict is Verdict.NOT_MEASURED:
        return "-"
    if cell.effect is None:
        return "off" if cell.word == OFF else loud(cell)
    return f"{loud(cell)} {percent(cell.effect, 1)}"


def _section(chip_class: str, found: Recorded) -> dict[str, Any]:
    records = {one.fusion: one for one in found.evidence.values() if one.chip.chip_class == chip_class}
    cells = [cell for cell in found.ruling.cells if cell.chip_class == chip_class and cell.fusion in records]
    timed = sorted(
        (cell for cell in cells if cell.effect is not None), key=lambda cell: (-(cell.effect or 0.0), cell.fusion)
    )
    return {
        "name": chip_class,
        "latest": max(records.values(), key=lambda one: one.date),
        "days": sorted(one.date[:10] for one in records.values()),
        "again": ", ".join(f"`{one.fusion}` {one.attempts} times" for one in records.values() if one.attempts > 1),
        "admitted": "+".join(found.admitted[chip_class]),
        "floor": found.noise.get(chip_class),
        "timed": table(_HEADER, [_row(cell, records[cell.fusion]) for cell in timed], left=_LEFT) if timed else "",
        "off": ", ".join(f"`{cell.fusion}`" for cell in cells if cell.word == OFF),
        "refused": [cell for cell in cells if cell.verdict not in (Verdict.WIN, None)],
    }


def _row(cell: Cell, record: Evidence) -> list[str]:
    checkpoint = cell.workload.partition("/")[0]
    checked = next((one for one in record.checked if one.checkpoint == checkpoint), None)
    launches = next((len(one.raw) for one in record.workloads if one.workload == cell.workload), 0)
    return [
        f"`{cell.fusion}`",
        cell.workload,
        effect(cell),
        sessions(cell),
        str(launches),
        loud(cell),
        _graph(checked),
        _logits(checked),
        "-" if checked is None or checked.memory_ratio is None else f"{checked.memory_ratio:.3f}",
    ]


def _graph(checked: Checked | None) -> str:
    if checked is None or checked.dispatch is None:
        return "-"
    one = checked.dispatch
    if one.same:
        return " ".join(f"`{name}={value}`" for name, value in sorted(one.knobs.items()))
    return f"{one.nodes[0]} to {one.nodes[1]}"


def _logits(checked: Checked | None) -> str:
    if checked is None or checked.parity is None:
        return "-"
    if not checked.parity.passed:
        return escape(checked.parity.reason)
    ratio = checked.parity.figures.get("worst_ratio")
    return "equal" if ratio == 0 else f"{ratio:.2g}" if isinstance(ratio, int | float) else "passed"


def _noise(floor: NoiseFloor) -> str:
    largest = f"the largest effect {100 * relative_change(floor.largest):.2f} %"
    return f"{100 * relative_change(floor.effect):.2f} %, of {floor.duels} A/A duels, {largest}, {floor.measured_on}"
