"""Plots of the site as inline SVG: shapes with classes, coloured by the page, so that one drawing suits light and dark.

Opinion: a plot says in words what it shows (title and description), and the table beside it has every number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_RIGHT, _ROW, _TOP, _BOTTOM = 24, 46, 6, 44
WIDTH, NARROW = 860, 520


@dataclass(frozen=True, slots=True)
class Spread:
    """One row of a range plot: a ``value`` with its interval, single ``dots`` and ``marks`` of others, all tok/s."""

    label: str
    value: float
    low: float | None
    high: float | None
    dots: tuple[float, ...] = ()
    marks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Dot:
    """One place on a line plot. ``value`` None is a failure; ``step`` marks a change (loss, win or empty)."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    step: str = ""


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about ``count`` of them."""
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * one for one in (1, 2, 5, 10) if power * one >= raw)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def ranges(name: str, title: str, rows: Sequence[Spread], unit: str = "tok/s") -> str:
    """Draw one row a workload: from 0, every session a dot, the median a bar mark, published figures diamonds."""
    values = [one for row in rows for one in (row.value, row.high, *row.dots, *row.marks) if one is not None]
    most = 1.06 * max(one for one in values if math.isfinite(one))
    height = _TOP + _ROW * len(rows) + _BOTTOM

    def x(value: float) -> float:
        return 12 + (NARROW - 36) * min(max(value, 0.0), most) / most

    parts = []
    foot = height - _BOTTOM
    for tick in ticks(0.0, most):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{foot}"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{foot + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(
        f'<text class="axis" x="{(x(0) + x(most)) / 2:.1f}" y="{height - 6}" text-anchor="middle">{escape(unit)}</text>'
    )
    for index, row in enumerate(rows):
        y = _TOP + _ROW * index + 30
        parts.append(f'<text class="label" x="14" y="{y - 13:.1f}">{escape(row.label)}</text>')
        if row.low is not None and row.high is not None:
            parts.append(f'<line class="interval" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="dot" cx="{x(one):.1f}" cy="{y}" r="3.5"/>' for one in row.dots]
        parts.append(f'<rect class="value" x="{x(row.value) - 2:.1f}" y="{y - 9}" width="4" height="18"/>')
        parts += [f'<path class="published" d="M{x(one):.1f} {y - 6}l6 6-6 6-6-6z"/>' for one in row.marks]
    said = "; ".join(f"{row.label} {row.value:.3g} {unit}" for row in rows)
    return _svg(name, title, f"Medians: {said}.", (NARROW, height), parts, "tall")


def line(name: str, title: str, dots: Sequence[Dot], unit: str, *, zero: float | None = None) -> str:
    """Draw values in order, one place each, with intervals, failures as crosses and steps as flags."""
    known = [one for dot in dots for one in (dot.value, dot.low, dot.high) if one is not None and math.isfinite(one)]
    if zero is not None:
        known.append(zero)
    least, most = (min(known), max(known)) if known else (0.0, 1.0)
    pad = 0.08 * (most - least) or 0.05 * abs(most) or 1.0
    least, most = least - pad, most + pad
    height, left, turned = 300, 74, len(dots) > 12
    foot = height - (78 if turned else 50)

    def y(value: float) -> float:
        return foot - (foot - _TOP) * (min(max(value, least), most) - least) / (most - least)

    def x(index: int) -> float:
        return left + (WIDTH - left - _RIGHT) * ((index + 0.5) / len(dots))

    parts = []
    for tick in ticks(least, most, 5):
        parts.append(f'<line class="grid" x1="{left}" x2="{WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text class="tick" x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    parts.append(
        f'<text class="axis" x="14" y="{(foot + _TOP) / 2}" transform="rotate(-90 14 {(foot + _TOP) / 2})" '
        f'text-anchor="middle">{escape(unit)}</text>'
    )
    if zero is not None:
        parts.append(f'<line class="zero" x1="{left}" x2="{WIDTH - _RIGHT}" y1="{y(zero):.1f}" y2="{y(zero):.1f}"/>')
    path = " ".join(f"{x(i):.1f},{y(dot.value):.1f}" for i, dot in enumerate(dots) if dot.value is not None)
    parts.append(f'<polyline class="trend" points="{path}"/>')
    every = max(1, math.ceil(len(dots) / 40))
    for i, dot in enumerate(dots):
        if i % every == 0:
            turn = f' transform="rotate(-50 {x(i):.1f} {foot + 16})"' if turned else ""
            anchor = "end" if turned else "middle"
            parts.append(
                f'<text class="tick" x="{x(i):.1f}" y="{foot + 16}" text-anchor="{anchor}"{turn}>'
                f"{escape(dot.label)}</text>"
            )
        if dot.step:
            parts.append(f'<line class="step {dot.step}" x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{_TOP}" y2="{foot}"/>')
        if dot.value is None:
            parts.append(f'<path class="failure" d="M{x(i) - 5:.1f} {foot - 12}l10 10m0-10l-10 10"/>')
            continue
        if dot.low is not None and dot.high is not None and math.isfinite(dot.low) and math.isfinite(dot.high):
            parts.append(
                f'<line class="interval" x1="{x(i):.1f}" x2="{x(i):.1f}" y1="{y(dot.low):.1f}" y2="{y(dot.high):.1f}"/>'
            )
        parts.append(f'<circle class="point" cx="{x(i):.1f}" cy="{y(dot.value):.1f}" r="4"/>')
    measured = [dot for dot in dots if dot.value is not None]
    said = f"{len(measured)} values"
    if measured:
        said += (
            f", from {measured[0].value:.4g} at {measured[0].label} to {measured[-1].value:.4g} at {measured[-1].label}"
        )
    if len(measured) < len(dots):
        said += f"; {len(dots) - len(measured)} could not be measured"
    return _svg(name, title, f"{said} ({unit}).", (WIDTH, height), parts, "long")


def _svg(name: str, title: str, description: str, size: tuple[float, float], parts: Sequence[str], kind: str) -> str:
    inner = "\n".join(parts)
    return (
        f'<div class="plot" tabindex="0" role="group" aria-label="{escape(title)}">'
        f'<svg class="{kind}" viewBox="0 0 {size[0]:g} {size[1]:g}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>\n{inner}\n'
        "</svg></div>"
    )
