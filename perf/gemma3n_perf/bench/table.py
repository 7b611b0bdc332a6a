"""The table of one ``pytest perf/`` session, which follows pytest-benchmark's own, and the lines below it.

The last line counts the verdicts and never wraps, so that it can be found in any log.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gemma3n_perf.report import units
from gemma3n_perf.report.terminal import STYLES, frame, laid_out
from gemma3n_perf.stats.verdicts import Caution, Verdict
from gemma3n_perf.store.published import PublishedFigure

WIDE = 120
NARROWEST = 80
FLOOR_LEGEND = "floor: the part of the time per token that reading the weights once takes"

Interval = tuple[float | None, float | None]
UNKNOWN: Interval = (None, None)


@dataclass(frozen=True, slots=True)
class Row:
    """One workload. Throughput in tok/s, times in seconds, ``floor_share`` and changes as fractions; None is unknown.

    ``floor_share`` is the streaming floor's part of the time per token: 1 would be as fast as memory allows.
    ``verdict`` is None where no comparison was requested; ``differs`` is what differs between the two programs.
    ``word`` is that verdict with its margin where that is wider than usual, ``ttft`` the one on TTFT.
    """

    workload: str
    tokps: float | None = None
    tokps_interval: Interval = UNKNOWN
    tpot_s: float | None = None
    ttft_s: float | None = None
    floor_share: float | None = None
    change: float | None = None
    change_interval: Interval = UNKNOWN
    verdict: Verdict | None = None
    note: str = ""
    differs: tuple[str, ...] = ()
    word: str = ""
    ttft: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one session prints. ``heading`` names chip and stack; ``planted`` as in Measurement.

    ``against`` is what the changes are against.

    ``references`` are published figures beside ours, each with its workload: shown and never compared.
    """

    heading: str
    rows: tuple[Row, ...]
    cautions: tuple[Caution, ...] = ()
    references: tuple[tuple[str, PublishedFigure], ...] = ()
    planted: float = 0.0
    against: str = ""


def planted_percent(planted: float) -> str:
    """Return a planted slowdown as it was requested: ``2.5 %``."""
    return f"{100 * planted:.4g} %"


def closing_line(rows: Sequence[Row], planted: float = 0.0) -> str:
    """Count the verdicts in one line: ``6 workloads: 1 loss, 3 no-change, 2 not-measured``."""
    counts = Counter(row.verdict for row in rows)
    kinds = Counter((row.verdict, row.word or row.verdict) for row in rows)
    parts = [f"{n} {word}" for verdict in STYLES for (one, word), n in kinds.items() if one is verdict]
    if counts[None]:
        parts.append(f"{counts[None]} not compared")
    text = f"{len(rows)} workload{'' if len(rows) == 1 else 's'}: {', '.join(parts) or 'nothing was measured'}"
    if ttft := Counter(row.ttft for row in rows if row.ttft is not None and row.ttft.is_claim):
        text += f"; TTFT: {', '.join(f'{n} {verdict}' for verdict, n in ttft.items())}"
    return f"{text} [planted {planted_percent(planted)}]" if planted else text


def render(report: Report, *, width: int = 80, colour: bool = False, unicode: bool = True) -> str:
    """Return the report as text ``width`` columns wide (80 at least), ending in the closing line, which never wraps."""
    width = max(width, NARROWEST)
    parts: list[Text | Table | Padding] = [Text(report.heading, style="bold")]
    if report.planted:
        planted = f"PLANTED SLOWDOWN of {planted_percent(report.planted)}: no number below is the code's own"
        parts.append(Text(planted, style="bold yellow"))
    if report.rows:
        parts.append(_table(report.rows, frame_unicode=unicode, wide=width >= WIDE))
        if any(row.floor_share is not None for row in report.rows):
            parts.append(Text(FLOOR_LEGEND))
        parts.append(Text(f"change against {report.against or 'nothing: no comparison was asked for'}"))
    parts += [Text(f"{row.workload}: {row.note}") for row in report.rows if row.note]
    for row in report.rows:
        if row.differs:
            parts.append(Text(f"{row.workload}: {row.word or row.verdict}; what differs:"))
            parts += [_indented(text) for text in row.differs]
    for caution in report.cautions:
        parts.append(Text(f"warning: {caution.found}", style="yellow"))
        parts.append(_indented(f"next: {caution.remedy}"))
    if report.references:
        parts.append(Text("published by others, shown beside ours and never judged:"))
    for workload, one in report.references:
        parts.append(
            _indented(f"{workload}: {one.figure.tokps} tok/s, {one.engine} on {one.figure.chip} ({one.source})")
        )
    closing = closing_line(report.rows, report.planted)
    text = laid_out(*parts, width=width, colour=colour) + (f"\x1b[1m{closing}\x1b[0m\n" if colour else f"{closing}\n")
    return text if unicode else text.encode("ascii", "replace").decode()


def _table(rows: Sequence[Row], *, frame_unicode: bool, wide: bool) -> Table:
    table = Table(box=frame(unicode=frame_unicode), pad_edge=False, padding=(0, 1 if wide else 0))
    between = " " if wide else "\n"
    for title in ("workload", f"tok/s{between}[95 %]", "TPOT", "TTFT", "floor", f"change{between}[95 %]", "verdict"):
        left = title in ("workload", "verdict")
        table.add_column(Text(title), justify="left" if left else "right", no_wrap=title != "workload", overflow="fold")
    for row in rows:
        head, _, shape = row.workload.rpartition("/")
        cells = (
            row.workload if wide or not head else f"{head}/\n  {shape}",
            f"{units.tokps(row.tokps)}{between}{_tokps(row.tokps_interval)}",
            units.seconds(row.tpot_s),
            units.seconds(row.ttft_s),
            units.percent(row.floor_share),
            f"{units.percent(row.change, 1, sign=True)}{between}{units.interval(*row.change_interval)}",
        )
        verdict = Text(row.word or row.verdict or "-", style=STYLES[row.verdict] if row.verdict else "")
        table.add_row(*(Text(cell.rstrip()) for cell in cells), verdict)
    return table


def _tokps(interval: Interval) -> str:
    low, high = interval
    return "" if low is None or high is None else f"[{units.tokps(low)}, {units.tokps(high)}]"


def _indented(text: str) -> Padding:
    return Padding(Text(text), (0, 0, 0, 2))
