"""Plots as SVG text: the same bytes from the same numbers, readable on a light and on a dark page.

Opinion: one mid-grey ink and no background, rather than two plots or styles that some viewers ignore.
"""

import io
from collections.abc import Mapping, Sequence
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


def session_spread(title: str, throughputs: Mapping[str, Sequence[float]]) -> bytes:
    """Draw every session's throughput as a dot, in percent of its workload's median; one line a workload.

    ``throughputs`` maps a workload id to tok/s of its sessions, at least one each.
    """
    with mpl.rc_context(STYLE):
        height = 1.3 + 0.42 * len(throughputs)
        figure = Figure(figsize=(8, height))
        axes = figure.add_axes((0.33, 0.75 / height, 0.63, (height - 1.2) / height))
        for index, (workload, values) in enumerate(throughputs.items()):
            ordered = sorted(values)
            middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
            offsets = [100 * (value / middle - 1) for value in values]
            colour = ACCENTS[index % len(ACCENTS)]
            axes.hlines(index, min(offsets), max(offsets), color=colour, linewidth=1.5, alpha=0.5)
            axes.plot(offsets, [index] * len(offsets), "o", color=colour, markersize=6, alpha=0.75, label=workload)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(range(len(throughputs)), list(throughputs))
        axes.set_ylim(len(throughputs) - 0.5, -0.5)
        reach = max(1.0, *(abs(value) for value in axes.get_xlim()))
        axes.set_xlim(-reach, reach)
        axes.set_xlabel("throughput of each session, % from the workload's median")
        figure.text(0.02, 1 - 0.3 / height, title, fontsize=12, va="center")
    return svg(figure)


def detection(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """Draw shares (0..1) against true effects (fractions), one line a rule; the first rule is drawn strongest."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2))
        axes = figure.add_axes((0.1, 0.14, 0.56, 0.72))
        for index, (name, points) in enumerate(curves.items()):
            x, y = ([100 * point[axis] for point in points] for axis in (0, 1))
            style = {"linewidth": 2.6, "markersize": 7} if index == 0 else {"linewidth": 1.2, "markersize": 4}
            axes.plot(x, y, "o-", color=ACCENTS[index % len(ACCENTS)], label=name, alpha=0.85, **style)  # type: ignore[arg-type]
        axes.set_ylim(-4, 104)
        axes.set_xlabel("true effect on throughput, %")
        axes.set_ylabel("said to differ, rightly so unless at 0, %")
        axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=9, labelcolor=INK)
        figure.text(0.02, 0.94, title, fontsize=12, va="center")
    return svg(figure)
