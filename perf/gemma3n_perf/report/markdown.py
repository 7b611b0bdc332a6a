"""The same report as Markdown, for job summaries and pages: every number the terminal shows, none besides."""

from collections.abc import Iterable, Sequence

from gemma3n_perf.report import rows as show
from gemma3n_perf.report.rows import Report, Row

_HEADER = ("workload", "tok/s [95 %]", "TPOT", "TTFT", "floor", "change [95 %]", "verdict", "against")
_LEFT = {"workload", "verdict", "against"}
_LOUD = {"invalid", "loss", "win"}
_ESCAPED = str.maketrans({"|": "\\|", "<": "&lt;", "\n": " "})


def render(report: Report) -> str:
    """Return the report as Markdown, closing line last and in bold."""
    parts = [escape(report.heading)]
    if report.planted:
        planted = show.planted_percent(report.planted)
        parts.append(f"**PLANTED SLOWDOWN of {planted}: no number below is the code's own**")
    if report.rows:
        parts.append(table(_HEADER, (_cells(row) for row in report.rows), left=_LEFT))
    notes = [f"- `{row.workload}`: {escape(row.note)}" for row in report.rows if row.note]
    notes += [f"- warning: {escape(one.found)}. Next: {escape(one.remedy)}" for one in report.notices]
    if notes:
        parts.append("\n".join(notes))
    if report.references:
        parts.append("Published by others, shown beside ours and never judged:")
        header = ("workload", "tok/s", "engine", "chip", "source")
        cells = ((f"`{one.workload}`", one.tokps, one.engine, one.chip, one.source) for one in report.references)
        parts.append(table(header, cells, left=set(header) - {"tok/s"}))
    parts.append(f"**{show.closing_line(report.rows, report.planted)}**")
    return "\n\n".join(parts) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Iterable[str] = ()) -> str:
    """Return a Markdown table; columns not named in ``left`` are aligned right."""
    kept = set(left)
    lines = [_line(header), _line([":---" if name in kept else "---:" for name in header])]
    lines += [_line([escape(cell) for cell in row]) for row in rows]
    return "\n".join(lines)


def escape(text: str) -> str:
    """Return ``text`` so that no character of it ends a table cell or opens a tag."""
    return text.translate(_ESCAPED)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row) -> list[str]:
    verdict = row.verdict or "-"
    return [
        f"`{row.workload}`",
        f"{show.tokps(row.tokps)} {show.tokps_interval(row)}".rstrip(),
        show.seconds(row.tpot_s),
        show.seconds(row.ttft_s),
        show.percent(row.floor_share),
        f"{show.percent(row.change, 1, sign=True)} {show.change_interval(row)}".rstrip(),
        f"**{verdict}**" if verdict in _LOUD else verdict,
        (row.baseline_label or "no baseline") if row.verdict else "-",
    ]
