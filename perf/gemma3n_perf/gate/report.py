"""What the gate says, rendered once: verdict first, then why, then the table; for a terminal, a phone and programs.

Every word that the author of a pull request could have written is plain text in Markdown, and does nothing.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TextIO

from rich.table import Table
from rich.text import Text

from gemma3n_perf.gate.change import NOTHING
from gemma3n_perf.gate.facts import Cell, EvidenceFacts, Objection, Ruling
from gemma3n_perf.report import units
from gemma3n_perf.report.markdown import plain
from gemma3n_perf.report.terminal import columns, frame, laid_out, speaks_unicode
from gemma3n_perf.stats.messages import percent
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.codec import indented

SCHEMA = 2
MAX_ROWS = 40
MAX_STEPS = 8
_NAME = "\0"
"""Stands for the fusion's in a reason that several share, which is said once."""
_BETWEEN = 3
"""What a column of a table takes beside its text."""
_STYLES = {"invalid": "bold red", "loss": "bold red", "no-change": "red", "win": "bold green", "off, proved": "green"}
_NEXT = {
    Verdict.LOSS: "keep it off where it loses, or make it faster",
    Verdict.NO_CHANGE: "leave it out, or keep it off there",
}


def closing(ruling: Ruling, missing: Sequence[Objection] = ()) -> str:
    """Say in one line how it ended; ``missing`` are objections to classes whose evidence never came to be judged."""
    entered = ", ".join(one.fusion for one in ruling.decisions if one.admitted)
    refused = ", ".join(one.fusion for one in ruling.decisions if not one.admitted)
    verdicts = dict.fromkeys([*ruling.verdicts, *(one.verdict for one in missing)])
    if not verdicts:
        return f"admitted: {entered}" if ruling.decisions else NOTHING
    text = f"refused: {', '.join(verdicts)}" + (f" ({refused})" if refused else "")
    return f"{text}; admitted: {entered}" if entered and refused else text


def effect(cell: Cell) -> str:
    """Return ``+2.00 % [+1.38, +2.61]``; a dash where nothing was judged."""
    return units.effect(cell.effect, cell.low, cell.high)


def sessions(cell: Cell) -> str:
    """Return each session's effect: ``+1.9, +2.1 %``."""
    shown = [percent(value, 1).removesuffix(" %") for value in cell.sessions]
    return f"{', '.join(shown)} %" if shown else "-"


def loud(cell: Cell) -> str:
    """Return its word as Markdown, in bold where nobody should miss it."""
    return f"**{cell.word}**" if cell.verdict in (Verdict.WIN, Verdict.LOSS, Verdict.INVALID) else cell.word


def basis(session_sd: float) -> str:
    """Say in one line which interval decides, which is reported, and how far sessions are taken to lie apart."""
    rules = Policy()
    reported, decides = units.percent(1 - rules.reported), units.percent(1 - rules.alpha)
    return (
        f"intervals shown are of {reported}, those that decide of {decides} over all looks, each for all judged "
        f"together; sessions are taken to lie {100 * session_sd:.3g} % apart (session_sd of the policy), assumed until "
        "A/A duels of three days are stored"
    )


def write(ruling: Ruling, notes: Sequence[str], out: TextIO) -> None:
    """Print the verdict, the reasons, the table, and what its intervals are."""
    out.write(f"{closing(ruling)}\n")
    reasons: dict[tuple[Verdict, str, str], list[str]] = {}
    for decision in ruling.decisions:
        for one in decision.reasons:
            shared = (one.found.replace(decision.fusion, _NAME), one.remedy.replace(decision.fusion, _NAME))
            reasons.setdefault((one.verdict, *shared), []).append(decision.fusion)
    for (verdict, found, remedy), names in reasons.items():
        out.write(f"  {verdict}: {found.replace(_NAME, ', '.join(names))}\n")
        out.write(f"    next: {remedy.replace(_NAME, ' --fusion '.join(names))}\n" if remedy else "")
    if ruling.decisions:
        out.write(_tables(ruling, unicode=speaks_unicode(out), coloured=out.isatty()))
    out.writelines(f"{one}\n" for one in _basis(ruling))
    out.writelines(f"note: {note}\n" for note in notes)


def _basis(ruling: Ruling) -> list[str]:
    judged = any(cell.effect is not None for cell in ruling.cells)
    return [basis(ruling.session_sd)] if judged and ruling.session_sd is not None else []


_TITLES = ("chip class and workload", "effect [95 %]", "each session", "verdict")
_LEAST = (0, 1, 3)
"""The columns that a narrow terminal still has room for."""


def _tables(ruling: Ruling, *, unicode: bool, coloured: bool) -> str:
    """One table for each fusion, all with the same columns, below one header."""
    parts: list[Text | Table] = []
    listed = [(decision, [*_rows(ruling.cells_of(decision.fusion))]) for decision in ruling.decisions]
    every = [_TITLES, *(row for _, rows in listed for row in rows)]
    widths = [max(map(len, column)) for column in zip(*every, strict=True)]
    fits = sum(widths) + _BETWEEN * len(widths) + 1 <= columns()
    chosen = range(len(_TITLES)) if fits else _LEAST
    folds = sum(widths[one] + _BETWEEN for one in chosen) >= columns()
    for number, (decision, rows) in enumerate(listed):
        parts.append(Text(f"{decision.fusion}: {'admitted' if decision.admitted else 'refused'}", style="bold"))
        table = Table(box=frame(unicode=unicode), pad_edge=False, show_header=number == 0)
        for one in chosen:
            justify: Literal["left", "right"] = "right" if 0 < one < len(_TITLES) - 1 else "left"
            least = None if folds and one == 0 else widths[one]
            table.add_column(_TITLES[one], justify=justify, min_width=least, overflow="fold", no_wrap=one > 0)
        for row in rows:
            cells: list[str | Text] = [*row[:-1], Text(row[-1], style=_STYLES.get(row[-1], "yellow"))]
            table.add_row(*(cells[one] for one in chosen))
        parts.append(table)
    return laid_out(*parts, colour=coloured, dense=True)


def _rows(cells: Sequence[Cell]) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each class, and below it one for each workload where they say more than the class does."""
    for chip_class in dict.fromkeys(cell.chip_class for cell in cells):
        own = [cell for cell in cells if cell.chip_class == chip_class]
        shown = {cell.word for cell in own if cell.effect is None}
        if len(shown) == 1 and all(cell.effect is None for cell in own):
            yield chip_class, "-", "-", shown.pop()
            continue
        yield chip_class, "", "", ""
        for cell in own:
            name = f"  {cell.workload}{'' if cell.required else ' (extra)'}"
            yield name, effect(cell), sessions(cell), cell.word


def markdown(
    ruling: Ruling,
    notes: Sequence[str] = (),
    *,
    facts: Sequence[EvidenceFacts] = (),
    missing: Sequence[Objection] = (),
) -> list[str]:
    """Return paragraphs short enough for a phone: a narrow table for each fusion, what to do next, and the notes.

    ``facts`` tell beside each class whether output and path were right; ``missing`` are as for ``closing``.
    """
    found = []
    for decision in ruling.decisions:
        title = f"{plain(decision.fusion)}: {'admitted' if decision.admitted else 'refused'}"
        read = [one for one in facts if one.fusion == decision.fusion]
        found.append(f"**{title}**\n\n{_narrow(ruling.cells_of(decision.fusion), read)}")
    steps = _steps(ruling, missing)
    if steps:
        found.append("\n".join(["**Next**\n", *steps]))
    return [*found, *_basis(ruling), *(f"Note: {plain(note)}" for note in notes[:MAX_STEPS])]


def _narrow(cells: Sequence[Cell], facts: Sequence[EvidenceFacts]) -> str:
    lines = ["| workload | effect [95 %] | verdict |", "| :--- | ---: | :--- |"]
    before = None
    for cell in cells[:MAX_ROWS]:
        if cell.chip_class != before:
            before = cell.chip_class
            checked = next((_checked(one) for one in facts if one.chip_class == before and one.versions), "")
            lines.append(f"| **{plain(before)}**{checked} | | |")
        lines.append(f"| {plain(cell.workload)} | {effect(cell)} | {loud(cell)} |")
    if len(cells) > MAX_ROWS:
        lines.append(f"| and {len(cells) - MAX_ROWS} more, in the run | | |")
    return "\n".join(lines)


def _checked(one: EvidenceFacts) -> str:
    """Whether output and path were right, over all checkpoints."""
    parity = [each.parity.passed and each.parity.finite for each in one.checked if each.parity]
    paths = [not each.dispatch.changed if one.off else each.dispatch.seen for each in one.checked if each.dispatch]
    return f" parity {_all_right(parity)}, dispatch {_all_right(paths)}"


def _all_right(found: Sequence[bool]) -> str:
    return "unknown" if not found else "ok" if all(found) else "**wrong**"


def _steps(ruling: Ruling, missing: Sequence[Objection]) -> list[str]:
    found = [f"- {f'{plain(one.chip_class)}: ' if one.chip_class else ''}{step(one)}" for one in missing]
    absent = {one.chip_class for one in missing} - {None}
    shown = Counter[Verdict]()
    for one in (reason for decision in ruling.decisions for reason in decision.reasons):
        if not one.remedy:
            shown[one.verdict] += 1
        elif one.chip_class not in absent:
            found.append(f"- {step(one)}")
    for verdict, count in shown.items():
        # The table says where; on a phone, saying it again pushes the rest out of sight.
        found.append(f"- {verdict}, {count} in the table. Next: {_NEXT.get(verdict, 'see the run')}")
    found = list(dict.fromkeys(found))
    more = len(found) - MAX_STEPS
    return found[:MAX_STEPS] + ([f"- and {more} more, in the run"] if more > 0 else [])


def step(one: Objection) -> str:
    """Return an objection as Markdown: its verdict, what was found, and what to do next."""
    return f"{one.verdict}: {plain(one.found)}" + (f". Next: {plain(one.remedy)}" if one.remedy else "")


def as_json(ruling: Ruling, notes: Sequence[str] = ()) -> bytes:
    """Return all of it as JSON; verdicts and effects as in the records, ``verdict`` null where the fusion is off."""
    tree: dict[str, Any] = {
        "schema": SCHEMA,
        "result": "refused" if ruling.verdicts else "admitted" if ruling.decisions else "nothing-to-gate",
        "exit_code": ruling.exit_code,
        "verdicts": ruling.verdicts,
        "decisions": ruling.decisions,
        "cells": ruling.cells,
        "session_sd": ruling.session_sd,
        "notes": [*notes],
    }
    return indented(tree)
