"""Plots of the site as inline SVG: shapes with classes, coloured by the page, so that one drawing suits light and dark.

A plot says in a title and a description what it shows, and the table beside it has every number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from matplotlib.ticker import MaxNLocator

_RIGHT, _ROW, _TOP, _BOTTOM = 24, 46, 6, 44
WIDTH, NARROW = 860, 520


@dataclass(frozen=True, slots=True)
class Spread:
    """One row of a range plot: a ``value``, the ``dots`` whose range it has, and ``marks`` of others, all tok/s."""

    label: str
    value: float
    dots: tuple[float, ...]
    marks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Dot:
    """One place on a line plot. ``value`` None is a failure; ``step`` marks a change (loss, win or empty)."""

    label: str
    value: float | None
    low: float | None = None
    high: float | None = None
    step: str = ""


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about ``count`` of them."""
    found = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(one) for one in found if low <= one <= high]


def ranges(name: str, title: str, rows: Sequence[Spread], unit: str = "tok/s") -> str:
    """Draw one row a workload: from 0, every session a dot, the median a bar mark, published figures diamonds."""
    most = 1.06 * max(one for row in rows for one in (row.value, *row.dots, *row.marks))
    height = _TOP + _ROW * len(rows) + _BOTTOM
    foot = height - _BOTTOM

    def x(value: float) -> float:
        return 12 + (NARROW - 36) * min(max(value, 0.0), most) / most

    parts = []
    for tick in _ticks(0.0, most, 6):
        parts += [_line("grid", x(tick), _TOP, x(tick), foot), _text("tick", x(tick), foot + 18, f"{tick:g}")]
    parts.append(_text("axis", (x(0) + x(most)) / 2, height - 6, unit))
    for index, row in enumerate(rows):
        y = _TOP + _ROW * index + 30
        parts.append(_text("label", 14, y - 13, row.label, "start"))
        parts.append(_line("interval", x(min(row.dots)), y, x(max(row.dots)), y))
        parts += [_dot("dot", x(one), y, 3.5) for one in row.dots]
        parts.append(f'<rect class="value" x="{x(row.value) - 2:.1f}" y="{y - 9}" width="4" height="18"/>')
        parts += [f'<path class="published" d="M{x(one):.1f} {y - 6}l6 6-6 6-6-6z"/>' for one in row.marks]
    medians = "; ".join(f"{row.label} {row.value:.3g} {unit}" for row in rows)
    return _svg(name, title, f"Medians: {medians}.", (NARROW, height), parts, "tall")


def line(name: str, title: str, dots: Sequence[Dot], unit: str, *, zero: float | None = None) -> str:
    """Draw values in order, one place each, with intervals, failures as crosses and steps as flags."""
    known = [one for dot in dots for one in (dot.value, dot.low, dot.high, zero) if one is not None] or [0.0, 1.0]
    least, most = min(known), max(known)
    pad = 0.08 * (most - least) or 0.05 * abs(most) or 1.0
    least, most = least - pad, most + pad
    height, left, turned = 300, 74, len(dots) > 12
    foot, right = height - (78 if turned else 50), WIDTH - _RIGHT
    middle = (foot + _TOP) / 2

    def y(value: float) -> float:
        return foot - (foot - _TOP) * (value - least) / (most - least)

    def x(index: int) -> float:
        return left + (right - left) * ((index + 0.5) / len(dots))

    parts = []
    for tick in _ticks(least, most, 5):
        parts.append(_line("grid", left, y(tick), right, y(tick)))
        parts.append(_text("tick", left - 8, y(tick) + 4, f"{tick:.6g}", "end"))
    parts.append(_text("axis", 14, middle, unit, turn=-90))
    if zero is not None:
        parts.append(_line("zero", left, y(zero), right, y(zero)))
    measured = [(x(i), y(dot.value), dot.label, dot.value) for i, dot in enumerate(dots) if dot.value is not None]
    path = " ".join(f"{at:.1f},{up:.1f}" for at, up, _, _ in measured)
    parts.append(f'<polyline class="trend" points="{path}"/>')
    every = max(1, math.ceil(len(dots) / 40))
    for i, dot in enumerate(dots):
        at = x(i)
        if i % every == 0:
            anchor, turn = ("end", -50) if turned else ("middle", 0)
            parts.append(_text("tick", at, foot + 16, dot.label, anchor, turn))
        if dot.step:
            parts.append(_line(f"step {dot.step}", at, _TOP, at, foot))
        if dot.value is None:
            parts.append(f'<path class="failure" d="M{at - 5:.1f} {foot - 12}l10 10m0-10l-10 10"/>')
            continue
        if dot.low is not None and dot.high is not None:
            parts.append(_line("interval", at, y(dot.low), at, y(dot.high)))
        parts.append(_dot("point", at, y(dot.value), 4))
    text = f"{len(measured)} values"
    if measured:
        (_, _, first, before), (_, _, last, after) = measured[0], measured[-1]
        text += f", from {before:.4g} at {first} to {after:.4g} at {last}"
    if len(measured) < len(dots):
        text += f"; {len(dots) - len(measured)} could not be measured"
    return _svg(name, title, f"{text} ({unit}).", (WIDTH, height), parts, "long")


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>'


def _dot(kind: str, x: float, y: float, radius: float) -> str:
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def _text(kind: str, x: float, y: float, text: str, anchor: str = "middle", turn: int = 0) -> str:
    turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{turned}>{escape(text)}</text>'


def _svg(name: str, title: str, description: str, size: tuple[int, int], parts: Sequence[str], kind: str) -> str:
    inner = "\n".join(parts)
    return (
        f'<div class="plot" tabindex="0" role="group" aria-label="{escape(title)}">'
        f'<svg class="{kind}" viewBox="0 0 {size[0]} {size[1]}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>\n{inner}\n'
        "</svg></div>"
    )
