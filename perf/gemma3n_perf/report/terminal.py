"""The table that follows pytest-benchmark's, for terminals and for logs that are 80 columns wide.

Nothing is said by colour alone, and no character needs more than the terminal's encoding has.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gemma3n_perf.report import rows as show
from gemma3n_perf.report.rows import Report, Row

WIDE = 120
NARROWEST = 80
FLOOR_LEGEND = "floor: the part of the time per token that reading the weights once takes"
_STYLES = {
    "invalid": "bold red",
    "loss": "bold red",
    "win": "bold green",
    "no-change": "green",
    "inconclusive": "yellow",
    "not-measured": "yellow",
}


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    below: str
    top: Callable[[Row], str]
    bottom: Callable[[Row], str]
    left: bool = False
    folds: bool = False


def _nothing(_: Row) -> str:
    return ""


_COLUMNS = (
    _Column("workload", "", lambda row: row.workload, _nothing, left=True, folds=True),
    _Column("tok/s", "[95 %]", lambda row: show.tokps(row.tokps), show.tokps_interval),
    _Column("TPOT", "", lambda row: show.seconds(row.tpot_s), _nothing),
    _Column("TTFT", "", lambda row: show.seconds(row.ttft_s), _nothing),
    _Column("floor", "", lambda row: show.percent(row.floor_share), _nothing),
    _Column("change", "[95 %]", lambda row: show.percent(row.change, 1, sign=True), show.change_interval),
    _Column("verdict", "", lambda row: row.verdict or "-", lambda row: _origin(row), left=True),
)


def render(report: Report, *, width: int = 80, colour: bool = False, unicode: bool = True) -> str:
    """Return the report as text ``width`` columns wide (80 at least), ending in the closing line, which never wraps."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=max(width, NARROWEST),
        force_terminal=colour,
        no_color=not colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        _environ={},
    )
    console.print(_body(report, console.width, unicode))
    closing = show.closing_line(report.rows, report.planted)
    body = "".join(f"{line.rstrip()}\n" for line in out.getvalue().splitlines())
    text = body + (f"\x1b[1m{closing}\x1b[0m\n" if colour else f"{closing}\n")
    return text if unicode else text.encode("ascii", "replace").decode()


def write(report: Report, out: TextIO, *, width: int = 80, colour: bool | None = None) -> None:
    """Render for ``out``: colour only on a terminal unless told, line drawing only where its encoding has it."""
    encoding = getattr(out, "encoding", None) or "ascii"
    painted = out.isatty() if colour is None else colour
    out.write(render(report, width=width, colour=painted, unicode=encoding.lower().startswith("utf")))


def _body(report: Report, width: int, unicode: bool) -> RenderableType:
    parts: list[RenderableType] = [Text(report.heading, style="bold")]
    if report.planted:
        planted = f"PLANTED SLOWDOWN of {show.planted_percent(report.planted)}: no number below is the code's own"
        parts.append(Text(planted, style="bold yellow"))
    if report.rows:
        parts.append(_table(report, width, unicode))
        if any(row.floor_share is not None for row in report.rows):
            parts.append(Text(FLOOR_LEGEND))
        parts.append(Text(f"change against {show.compared_with(report.rows)}"))
    for row in report.rows:
        if row.note:
            parts.append(_hanging(f"{row.workload}: {row.note}"))
    for notice in report.notices:
        parts.append(_hanging(f"warning: {notice.found}", style="yellow"))
        parts.append(Padding(Text(f"next: {notice.remedy}"), (0, 0, 0, 2)))
    if report.references:
        parts.append(Text("published by others, shown beside ours and never judged:"))
        parts += [
            _hanging(f"{one.workload}: {one.tokps} tok/s, {one.engine} on {one.chip} ({one.source})", indent=2)
            for one in report.references
        ]
    return Group(*parts)


def _table(report: Report, width: int, unicode: bool) -> Table:
    wide = width >= WIDE
    frame = box.SIMPLE_HEAD if unicode else _ASCII_HEAD
    table = Table(box=frame, pad_edge=False, padding=(0, 1 if wide else 0))
    for column in _COLUMNS:
        title = column.title if wide or not column.below else f"{column.title}\n{column.below}"
        if wide and column.below:
            title = f"{column.title} {column.below}"
        table.add_column(
            Text(title), justify="left" if column.left else "right", no_wrap=not column.folds, overflow="fold"
        )
    for row in report.rows:
        style = _STYLES.get(row.verdict or "", "")
        cells = [_cell(column, row, wide) for column in _COLUMNS]
        cells[-1].stylize(style)
        table.add_row(*cells)
    return table


def _cell(column: _Column, row: Row, wide: bool) -> Text:
    top, bottom = column.top(row), column.bottom(row)
    if column.title == "workload" and not wide:
        head, _, shape = top.rpartition("/")
        return Text(f"{head}/\n  {shape}" if head else shape)
    if not bottom:
        return Text(top)
    return Text(f"{top} {bottom}" if wide else f"{top}\n{bottom}")


def _origin(row: Row) -> str:
    """A stand-in is marked in its own row, for a caption is easily cut off when a row is quoted."""
    return "(local)" if row.baseline_label.startswith("local") else ""


def _hanging(text: str, *, indent: int = 0, style: str = "") -> RenderableType:
    return Padding(Text(text, style=style), (0, 0, 0, indent))


_ASCII_HEAD = box.Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
