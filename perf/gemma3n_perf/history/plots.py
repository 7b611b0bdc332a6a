"""Plots of the site as inline SVG: shapes with classes, coloured by the page, so that one drawing suits light and dark.

A plot says in a title and a description what it shows, and the table beside it has every number. The shapes are in
``ranges.html`` and ``line.html``; here is where they go.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from gemma3n_perf.report.pages import template

if TYPE_CHECKING:
    from jinja2 import Template

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP = 860, 300, 74, 24, 6
"""Of a line plot."""


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


def ranges(name: str, title: str, rows: Sequence[Spread]) -> str:
    """Draw one row a workload: from 0, every session a dot, the median a bar mark, published figures diamonds."""
    most = 1.06 * max(one for row in rows for one in (row.value, *row.dots, *row.marks))
    return _template("ranges.html").render(
        name=name,
        title=title,
        rows=rows,
        most=most,
        ticks=_ticks(0.0, most, 6),
        x=lambda value, width: 12 + (width - 36) * min(max(value, 0.0), most) / most,
    )


def line(name: str, title: str, dots: Sequence[Dot], unit: str, *, zero: float | None = None) -> str:
    """Draw values in order, one place each, with intervals, failures as crosses and steps as flags.

    The axis shows the range of the values; where zero is not in it, the plot says so.
    """
    known = [one for dot in dots for one in (dot.value, dot.low, dot.high, zero) if one is not None] or [0.0, 1.0]
    least, most = min(known), max(known)
    pad = 0.08 * (most - least) or 0.05 * abs(most) or 1.0
    least, most = least - pad, most + pad
    right, turned = _WIDTH - _RIGHT, len(dots) > 12
    foot = _HEIGHT - (78 if turned else 50)
    places = [(_LEFT + (right - _LEFT) * ((i + 0.5) / len(dots)), dot) for i, dot in enumerate(dots)]
    measured = [(at, dot) for at, dot in places if dot.value is not None]
    text = f"{len(measured)} values"
    if measured:
        first, last = measured[0][1], measured[-1][1]
        text += f", from {first.value:.4g} at {first.label} to {last.value:.4g} at {last.label}"
    if len(measured) < len(dots):
        text += f"; {len(dots) - len(measured)} could not be measured"
    return _template("line.html").render(
        name=name,
        title=title,
        text=text,
        unit=unit,
        zoomed=not least <= 0 <= most,
        zero=zero,
        places=places,
        measured=measured,
        every=max(1, math.ceil(len(dots) / 40)),
        turned=turned,
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=right,
        top=_TOP,
        foot=foot,
        ticks=_ticks(least, most, 5),
        y=lambda value: foot - (foot - _TOP) * (value - least) / (most - least),
    )


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers from ``low`` to ``high``, about ``count`` of them."""
    found = MaxNLocator(count, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(one) for one in found if low <= one <= high]


@cache
def _template(name: str) -> "Template":
    return template(Path(__file__).with_name(name), html=escape, px=lambda value: f"{value:.1f}")
