"""What a report is made of: values ready to show, in base units, with no opinion left to form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

VERDICTS = ("invalid", "loss", "win", "no-change", "inconclusive", "not-measured")
"""In the order a closing line counts them: what needs a person first."""

NO_BASELINE = ""
UNMEASURED = "not measured"
"""The label of a row that has nothing to compare: whether there is a baseline does not matter to it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One workload. Throughput in tok/s, times in seconds, ``floor_share`` and changes as fractions; None is unknown.

    ``floor_share`` is the streaming floor's part of the time per token: 1 would be as fast as memory allows.
    ``baseline_label`` says what the change is against (``committed 12 sessions``); empty where there is none.
    ``verdict`` is one of VERDICTS, or None where no comparison was asked for.
    """

    workload: str
    tokps: float | None = None
    tokps_low: float | None = None
    tokps_high: float | None = None
    tpot_s: float | None = None
    ttft_s: float | None = None
    floor_share: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    verdict: str | None = None
    baseline_label: str = NO_BASELINE
    note: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a word that is no verdict: a report must not invent one."""
        if self.verdict is not None and self.verdict not in VERDICTS:
            raise ValueError(f"verdict {self.verdict!r} is none of {', '.join(VERDICTS)}")


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning: what was found and what to do about it."""

    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A published figure beside ours, already worded: never compared, only shown."""

    workload: str
    tokps: str
    engine: str
    chip: str
    source: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything one session prints. ``heading`` names chip and stack; ``planted`` as in Measurement."""

    heading: str
    rows: tuple[Row, ...]
    notices: tuple[Notice, ...] = ()
    references: tuple[Reference, ...] = ()
    planted: float = 0.0


def with_notes(report: Report, notes: Mapping[str, str]) -> Report:
    """Return the report with more said of some workloads, in their own lines."""
    rows = (replace(row, note="; ".join(filter(None, (row.note, notes.get(row.workload))))) for row in report.rows)
    return replace(report, rows=tuple(rows))


def closing_line(rows: Sequence[Row], planted: float = 0.0) -> str:
    """Count the verdicts in one line: ``6 workloads: 1 loss, 3 no-change, 2 not-measured (1 no baseline)``."""
    counts = Counter(row.verdict for row in rows if row.verdict is not None)
    parts = [f"{counts[name]} {name}" for name in VERDICTS if counts[name]]
    uncompared = len(rows) - sum(counts.values())
    if uncompared:
        parts.append(f"{uncompared} not compared")
    missing = sum(row.verdict is not None and row.baseline_label == NO_BASELINE for row in rows)
    text = f"{len(rows)} workload{'' if len(rows) == 1 else 's'}: {', '.join(parts) or 'nothing was measured'}"
    if missing:
        text += f" ({missing} no baseline)"
    return f"{text} [planted {planted_percent(planted)}]" if planted else text


def percent(fraction: float | None, digits: int = 0, *, sign: bool = False) -> str:
    """Return ``-2.1 %``; a dash where the value is unknown."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:{'+' if sign else ''}.{digits}f}"
    # A change that rounds to nothing has no direction.
    if float(text) == 0:
        text = text.replace("-", "").replace("+", "")
    return f"{text} %"


def planted_percent(planted: float) -> str:
    """Return a planted slowdown as it was asked for: ``2.5 %``."""
    return f"{100 * planted:.4g} %"


def tokps(value: float | None) -> str:
    """Return a throughput with three or four significant digits, tok/s."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float | None) -> str:
    """Return a time scaled for reading: ``12.1 ms``, ``312 ms``, ``1.25 s``."""
    if value is None:
        return "-"
    if value >= 1:
        return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"
    milli = value * 1e3
    return f"{milli:.0f} ms" if milli >= 100 else f"{milli:.1f} ms" if milli >= 10 else f"{milli:.2f} ms"


def size(value: float | None) -> str:
    """Return bytes scaled for reading, decimal: ``2.52 GB``."""
    if value is None:
        return "-"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value:.0f} B"


def tokps_interval(row: Row) -> str:
    """Return ``[121.0, 125.9]``, or nothing where there is no interval."""
    if row.tokps_low is None or row.tokps_high is None:
        return ""
    return f"[{tokps(row.tokps_low)}, {tokps(row.tokps_high)}]"


def change_interval(row: Row) -> str:
    """Return ``[-3.0, -1.2]`` in percent, or nothing where there is no interval."""
    if row.change_low is None or row.change_high is None:
        return ""
    low, high = (percent(value, 1, sign=True).removesuffix(" %") for value in (row.change_low, row.change_high))
    return f"[{low}, {high}]"


def compared_with(rows: Sequence[Row]) -> str:
    """Return what the changes are against, naming the workloads where it is not the same for all."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        if row.verdict is not None and row.baseline_label != UNMEASURED:
            labels.setdefault(row.baseline_label or "no baseline", []).append(row.workload)
    if len(labels) <= 1:
        why = "no workload was measured" if any(row.verdict for row in rows) else "no comparison was asked for"
        return next(iter(labels), f"nothing: {why}")
    return "; ".join(f"{label}: {', '.join(names)}" for label, names in labels.items())
