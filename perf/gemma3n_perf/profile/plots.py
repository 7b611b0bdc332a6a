"""The plots of a profile, as SVG text: one mid-grey ink and no background, like every plot of this suite."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gemma3n_perf.profile.histogram import GROUPS, group_of
from gemma3n_perf.profile.types import Contexts, Estimate, Histogram, Knob, Split, WorkloadProfile
from gemma3n_perf.report import plots
from gemma3n_perf.report.plots import ACCENTS, INK
from gemma3n_perf.stats.policy import Policy

STAGES = ("build", "sample", "dispatch", "wait")
_MOST_BARS = 20


def drawings(one: WorkloadProfile) -> Iterator[tuple[str, bytes]]:
    """Yield the plots of what was measured of a workload, each with its kind."""
    workload = one.workload
    if one.split:
        yield "split", split_bar(f"{workload}: {one.split.bound}", one.split)
    if floor := one.floor:
        copied = floor.streamed_bytes / floor.copy_bandwidth
        bars = {"decode, per token": one.split.pipelined.tpot_s if one.split else floor.tpot_s}
        if one.trace and one.trace.busy_s:
            bars[f"device busy ({one.trace.source})"] = one.trace.busy_s
        bars["weight products alone"] = floor.chain_s
        bars["bytes at one large product's speed"] = floor.stream_s
        bars["bytes at a copy's speed"] = Estimate(copied, copied, copied, 1)
        yield "floor", floors(f"{workload}: a token and its floors", bars)
    if one.histogram:
        yield "operations", histogram(f"{workload}: operations of one decode token", one.histogram)
    if one.contexts:
        yield "context", contexts(f"{workload.split('/')[0]}: decode against KV length", one.contexts)
    if one.sweep and any(knob.effect is not None for knob in one.sweep.knobs):
        yield "sweep", sweep(f"{workload}: knobs against the default", one.sweep.knobs, Policy().minimum_effect)


def split_bar(title: str, split: Split) -> bytes:
    """Draw both loops as stacked bars of their stages, milliseconds a token, with the interval of the whole."""
    with _figure(title, rows=2) as (figure, axes):
        for row, loop in enumerate((split.pipelined, split.synchronous)):
            left = 0.0
            for stage, colour in zip(STAGES, ACCENTS, strict=False):
                width = 1e3 * getattr(loop, f"{stage}_s").value
                axes.barh(row, width, left=left, height=0.55, color=colour, label=None if row else stage)
                left += width
            _interval(axes, loop.tpot_s, row)
            axes.text(1e3 * loop.tpot_s.high, row, f"  {1e3 * loop.tpot_s.value:.2f} ms", va="center", fontsize=9)
        _rows(axes, ("pipelined", "synchronous"), "ms per token, median over rounds; line: 95 % interval of the whole")
        _legend(figure, 4)
    return plots.svg(figure)


def histogram(title: str, found: Histogram) -> bytes:
    """Draw the commonest operations, coloured by group, the others as one bar."""
    ordered = sorted(found.operations.items(), key=lambda item: -item[1])
    shown, others = ordered[:_MOST_BARS], ordered[_MOST_BARS:]
    bars = [(name if len(name) <= 30 else f"{name[:28]}..", count, group_of(name)) for name, count in shown]
    if others:
        bars.append((f"{len(others)} others", sum(count for _, count in others), ""))
    with _figure(title, rows=len(bars), each=0.24) as (figure, axes):
        labels = list(GROUPS)
        for row, (_, count, group) in enumerate(bars):
            look = {"color": ACCENTS[GROUPS.index(group)]} if group else {"color": INK, "alpha": 0.5}
            axes.barh(row, count, height=0.7, label=group if group in labels else None, **look)
            axes.text(count, row, f" {count}", va="center", fontsize=8)
            labels = [one for one in labels if one != group]
        _rows(axes, [name for name, _, _ in bars], f"operations of one decode token, {found.nodes} in all", fontsize=8)
        _legend(figure, 3)
    return plots.svg(figure)


def sweep(title: str, knobs: Sequence[Knob], threshold: float) -> bytes:
    """Draw each setting's effect with its interval, and the band in which nothing counts as a change."""
    shown = [one for one in knobs if one.effect is not None and one.low is not None and one.high is not None]
    with _figure(title, rows=max(len(shown), 1), left=0.42) as (figure, axes):
        axes.axvspan(-100 * threshold, 100 * threshold, color=INK, alpha=0.15, linewidth=0)
        axes.axvline(0, color=INK, linewidth=0.8)
        for row, one in enumerate(shown):
            colour = {"win": ACCENTS[2], "loss": ACCENTS[1]}.get(one.verdict, ACCENTS[0])
            axes.hlines(row, 100 * (one.low or 0), 100 * (one.high or 0), color=colour, linewidth=2)
            axes.plot([100 * (one.effect or 0)], [row], "o", color=colour, markersize=6)
        labels = [f"{one.setting}\n{one.verdict}".replace("+", "\n") for one in shown]
        axes.set_yticks(range(len(shown)), labels, fontsize=8)
        axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
        axes.set_xlabel("throughput against the default, %; line: 95 %")
    return plots.svg(figure)


def floors(title: str, bars: Mapping[str, Estimate]) -> bytes:
    """Draw what a token takes beside the least it could take, milliseconds, each with its interval."""
    with _figure(title, rows=len(bars), left=0.36) as (figure, axes):
        for row, value in enumerate(bars.values()):
            axes.barh(row, 1e3 * value.value, height=0.55, color=ACCENTS[0] if not row else ACCENTS[2], alpha=0.85)
            _interval(axes, value, row)
            axes.text(1e3 * value.high, row, f"  {1e3 * value.value:.3g} ms", va="center", fontsize=9)
        _rows(axes, list(bars), "ms per token; line: 95 % interval", fontsize=9)
    return plots.svg(figure)


def contexts(title: str, found: Contexts) -> bytes:
    """Draw the time per token against the tokens in the KV cache, text as a line and an image as one more point."""
    marks = [(one, ACCENTS[0]) for one in found.points]
    with _figure(title, rows=6, left=0.12) as (figure, axes):
        xs = [one.positions for one in found.points]
        ys = [1e3 * one.tpot_s.value for one in found.points]
        axes.plot(xs, ys, "o-", color=ACCENTS[0], label="text", linewidth=1.2)
        if image := found.image:
            axes.plot([image.positions], [1e3 * image.tpot_s.value], "s", color=ACCENTS[1], label="image", markersize=7)
            marks.append((image, ACCENTS[1]))
        for one, colour in marks:
            axes.vlines(one.positions, 1e3 * one.tpot_s.low, 1e3 * one.tpot_s.high, color=colour, linewidth=1.5)
        axes.set_xlim(0, 1.06 * max(xs))
        axes.set_ylim(0, 1.15 * max(1e3 * one.tpot_s.high for one, _ in marks))
        axes.set_xlabel("tokens in the KV cache")
        axes.set_ylabel("ms per token")
        _legend(figure, 2)
    return plots.svg(figure)


@contextmanager
def _figure(title: str, *, rows: int, each: float = 0.46, left: float = 0.3) -> Iterator[tuple[Figure, Any]]:
    with mpl.rc_context(plots.STYLE):
        height = 1.45 + each * rows
        figure = Figure(figsize=(8, height))
        axes = figure.add_axes((left, 0.62 / height, 0.96 - left, (height - 1.3) / height))
        figure.text(0.02, 1 - 0.22 / height, title, fontsize=11, va="center")
        yield figure, axes


def _interval(axes: Any, value: Estimate, row: float) -> None:
    axes.hlines(row, 1e3 * value.low, 1e3 * value.high, color=INK, linewidth=2)


def _rows(axes: Any, names: Sequence[str], label: str, fontsize: float | None = None) -> None:
    """Name the bars, first one at the top, and leave space for a figure at their ends."""
    axes.set_yticks(range(len(names)), names, fontsize=fontsize)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.16 * axes.get_xlim()[1])
    axes.set_xlabel(label)


def _legend(figure: Figure, columns: int) -> None:
    figure.legend(loc="upper right", ncols=columns, frameon=False, fontsize=9, labelcolor=INK)
