"""What the gate says: the verdict first, then why, then the table; for a terminal, for a phone and for programs."""

import io
from collections.abc import Callable
from typing import Any, TextIO

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gemma3n_perf.gate.change import NOTHING
from gemma3n_perf.gate.facts import Cell, Objection, Ruling
from gemma3n_perf.report.markdown import escape
from gemma3n_perf.report.markdown import table as markdown_table
from gemma3n_perf.stats.messages import percent

SCHEMA = 1
_WIDTH = 118
_STYLES = {"invalid": "bold red", "loss": "bold red", "no-change": "red", "win": "bold green", "off, proved": "green"}


def closing(ruling: Ruling | None) -> str:
    """Say in one line how it ended: ``refused: loss, not-measured (stacked-altup)``."""
    if ruling is None:
        return NOTHING
    names = [one.fusion for one in ruling.decisions]
    if ruling.admitted:
        return f"admitted: {', '.join(names)}"
    refused = [one.fusion for one in ruling.decisions if not one.admitted]
    entered = [one.fusion for one in ruling.decisions if one.admitted]
    words = ", ".join(one.value for one in ruling.verdicts)
    return f"refused: {words} ({', '.join(refused)})" + (f"; admitted: {', '.join(entered)}" if entered else "")


def effect(cell: Cell) -> str:
    """Return ``+2.00 % [+1.38, +2.61]``; a dash where nothing was judged."""
    if cell.effect is None:
        return "-"
    if cell.low is None or cell.high is None:
        return percent(cell.effect)
    low, high = (percent(value).removesuffix(" %") for value in (cell.low, cell.high))
    return f"{percent(cell.effect)} [{low}, {high}]"


def sessions(cell: Cell) -> str:
    """Return each session's effect: ``+1.9, +2.1 %``."""
    shown = [percent(value, 1).removesuffix(" %") for value in cell.sessions]
    return f"{', '.join(shown)} %" if shown else "-"


def write(ruling: Ruling | None, notes: tuple[str, ...], out: TextIO) -> None:
    """Print the verdict, the reasons and the table."""
    out.write(f"{closing(ruling)}\n")
    if ruling is not None:
        for decision in ruling.decisions:
            for reason in decision.reasons:
                out.write(f"  {reason.verdict}: {reason.found}\n")
                out.write(f"    next: {reason.remedy}\n" if reason.remedy else "")
        out.write(_tables(ruling, getattr(out, "encoding", None) or "ascii", coloured=out.isatty()))
    for note in (*(ruling.notes if ruling else ()), *notes):
        out.write(f"note: {note}\n")


def _tables(ruling: Ruling, encoding: str, *, coloured: bool) -> str:
    """One table for each fusion, all with the same columns."""
    text = io.StringIO()
    console = Console(
        file=text, width=_WIDTH, force_terminal=coloured, no_color=not coloured, legacy_windows=False, _environ={}
    )
    widths = [max((len(column(cell)) for cell in ruling.cells), default=0) for column in _COLUMNS.values()]
    for decision in ruling.decisions:
        console.print(Text(f"{decision.fusion}: {'admitted' if decision.admitted else 'refused'}", style="bold"))
        table = Table(box=box.SIMPLE_HEAD if encoding.lower().startswith("utf") else _ASCII, pad_edge=False)
        for title, width in zip(_COLUMNS, widths, strict=True):
            right = title not in ("chip class", "workload", "verdict")
            table.add_column(title, justify="right" if right else "left", min_width=width, overflow="fold")
        before = None
        for cell in (cell for cell in ruling.cells if cell.fusion == decision.fusion):
            shown: list[str | Text] = [column(cell) for column in _COLUMNS.values()]
            shown[0] = "" if cell.chip_class == before else cell.chip_class
            shown[-1] = Text(cell.word, style=_STYLES.get(cell.word, "yellow"))
            table.add_row(*shown)
            before = cell.chip_class
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines() if line.strip())


_COLUMNS: dict[str, Callable[[Cell], str]] = {
    "chip class": lambda cell: cell.chip_class,
    "workload": lambda cell: cell.workload + ("" if cell.required else " (extra)"),
    "effect [95 %]": effect,
    "each session": sessions,
    "verdict": lambda cell: cell.word,
}


def markdown(ruling: Ruling | None, notes: tuple[str, ...] = ()) -> str:
    """Return the same, short enough for a phone: verdict first, then reasons, then a narrow table for each fusion."""
    parts = [f"**{escape(closing(ruling))}**"]
    for decision in ruling.decisions if ruling else ():
        lines = [f"- {one.verdict}: {_brief(one)}" for one in decision.reasons]
        if lines:
            parts.append("\n".join(lines))
    for decision in ruling.decisions if ruling else ():
        cells = [cell for cell in ruling.cells if cell.fusion == decision.fusion] if ruling else []
        rows = [(f"{_short(cell)}", effect(cell), loud(cell)) for cell in cells]
        title = f"`{decision.fusion}`: {'admitted' if decision.admitted else 'refused'}"
        parts.append(
            f"{title}\n\n{markdown_table(('where', 'effect [95 %]', 'verdict'), rows, left={'where', 'verdict'})}"
        )
    parts += [f"- note: {escape(note)}" for note in (*(ruling.notes if ruling else ()), *notes)]
    return "\n\n".join(parts) + "\n"


def _brief(reason: Objection) -> str:
    """A reason without the judge's advice on sample sizes, which a phone has no room for."""
    found = reason.found.partition("; so many launches")[0]
    return escape(f"{found}. Next: {reason.remedy}" if reason.remedy else found)


def _short(cell: Cell) -> str:
    """The class, and of the workload what tells it apart on a narrow screen."""
    return cell.chip_class if cell.workload == "any" else f"{cell.chip_class} {cell.workload}"


def loud(cell: Cell) -> str:
    """Return its word as Markdown, in bold where nobody should miss it."""
    return f"**{cell.word}**" if cell.word in ("win", "loss", "invalid") else cell.word


def as_json(ruling: Ruling | None, notes: tuple[str, ...] = ()) -> bytes:
    """Return all of it as JSON; verdicts and effects as in the records, ``verdict`` null where the fusion is off."""
    tree: dict[str, Any] = {
        "schema": SCHEMA,
        "answer": "nothing-to-gate" if ruling is None else "admitted" if ruling.admitted else "refused",
        "exit_code": 0 if ruling is None else ruling.exit_code,
        "verdicts": [] if ruling is None else list(ruling.verdicts),
        "decisions": [] if ruling is None else msgspec.to_builtins(ruling.decisions),
        "cells": [] if ruling is None else msgspec.to_builtins(ruling.cells),
        "notes": [*(ruling.notes if ruling else ()), *notes],
    }
    return msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n"


_ASCII = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
