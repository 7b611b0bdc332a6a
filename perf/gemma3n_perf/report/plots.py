"""Plots as SVG text: the same bytes from the same numbers.

Opinion: one mid-grey ink and no background, readable on a light and on a dark page, rather than two plots or styles
that some viewers ignore.
"""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#7d7d7d"
"""4.1 to 1 against white and 4.6 to 1 against a dark page: enough for large text and lines on both."""

ACCENTS = ("#2f81d8", "#c9702a", "#2f9e6e", "#a763c4", "#b8860b", "#d0517b")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "gemma3n-perf",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG with nothing in it that changes from day to day or machine to machine."""
    out = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    lines = (line.rstrip() for line in out.getvalue().splitlines())
    return ("\n".join(lines) + "\n").encode()
