"""The page of all baselines, made from the committed records and from nothing else. Its text is in ``baselines.md``.

The same records give the same bytes, so a check can tell whether the page is current.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import matplotlib as mpl
from matplotlib.figure import Figure

from gemma3n_perf.decode.types import Measurement
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.report import describe, plots, units
from gemma3n_perf.report.markdown import escape
from gemma3n_perf.report.pages import template
from gemma3n_perf.store.published import Publication
from gemma3n_perf.store.types import Baseline, summarise

PAGE = PurePosixPath("baselines.md")
PLOTS = PurePosixPath("plots")


def build(baselines: Sequence[Baseline], publications: Sequence[Publication]) -> dict[PurePosixPath, bytes]:
    """Return the page and its plots, by path below the docs folder."""
    files: dict[PurePosixPath, bytes] = {}
    sections = []
    for baseline in baselines:
        summaries = [summarise(baseline, workload) for workload in baseline.workloads]
        measured = [one for session in baseline.sessions for one in session.measurements]
        plot = PLOTS / f"baselines-{baseline.chip.chip_class}.svg"
        files[plot] = _spread(
            f"{baseline.chip.chip_class}: {describe.sessions(len(baseline.sessions))}",
            {one.workload: one.sessions_tokps for one in summaries},
        )
        sections.append((baseline, summaries, measured, plot))
    page = template(
        Path(__file__).with_name("baselines.md"),
        cell=escape,
        percent=units.percent,
        seconds=units.seconds,
        size=units.size,
        tokps=units.tokps,
    ).render(
        sections=sections,
        publications=publications,
        describe=describe,
        conditions=lambda measured: conditions(run.conditions for one in measured for run in one.runs),
        discarded=_discarded,
        knobs=lambda knobs: " ".join(f"`{name}={value}`" for name, value in sorted(knobs.items())) or "-",
    )
    return files | {PAGE: page.encode()}


def _discarded(measured: Sequence[Measurement]) -> str:
    faults = Counter(fault for one in measured for run in one.discarded for fault in run.faults)
    return ", ".join(f"{count} for {code}" for code, count in sorted(faults.items())) or "none"


def conditions(states: Iterable[Conditions]) -> str:
    """Return how the machine fared, in words; ``unknown`` is what the platform does not report."""
    seen = list(states)
    reasons = {reason for one in seen for reason in one.throttle_reasons or ()}
    throttling = any(one.throttle_reasons is not None for one in seen)
    parts = [
        f"load {_range(one.load1 for one in seen)}",
        f"steal {_range((one.steal for one in seen), _share)}",
        f"other processes {_range((one.foreign_cpu for one in seen), _share)} of all cores",
        f"thermal state {_listed(one.thermal for one in seen)}",
        f"power {_listed(one.power_source for one in seen)}",
        f"GPU clock {_range((one.gpu_clock_hz for one in seen), lambda hertz: str(round(hertz / 1e6)))} MHz",
        f"GPU {_range((one.gpu_temperature_c for one in seen), '{:.0f}'.format)} °C",
        f"throttling {(', '.join(sorted(reasons)) or 'none') if throttling else 'unknown'}",
    ]
    return "; ".join(part for part in parts if not part.startswith("GPU") or "unknown" not in part)


def _share(fraction: float) -> str:
    return units.percent(fraction, 1)


def _range(values: Iterable[float | None], shown: Callable[[float], str] = "{:.1f}".format) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "unknown"
    low, high = shown(min(known)), shown(max(known))
    return low if low == high else f"{low} to {high}"


def _listed(values: Iterable[str | None]) -> str:
    return ", ".join(sorted({value for value in values if value is not None})) or "unknown"


def _spread(title: str, throughputs: Mapping[str, Sequence[float]]) -> bytes:
    """Draw every session's throughput as a dot, in percent of its workload's median; one line a workload.

    ``throughputs`` maps a workload id to tok/s of its sessions, at least one each.
    """
    with mpl.rc_context(plots.STYLE):
        height = 1.3 + 0.42 * len(throughputs)
        figure = Figure(figsize=(8, height))
        axes = figure.add_axes((0.33, 0.75 / height, 0.63, (height - 1.2) / height))
        for index, (workload, values) in enumerate(throughputs.items()):
            ordered = sorted(values)
            middle = (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
            offsets = [100 * (value / middle - 1) for value in values]
            colour = plots.ACCENTS[index % len(plots.ACCENTS)]
            axes.hlines(index, min(offsets), max(offsets), color=colour, linewidth=1.5, alpha=0.5)
            axes.plot(offsets, [index] * len(offsets), "o", color=colour, markersize=6, alpha=0.75, label=workload)
        axes.axvline(0, color=plots.INK, linewidth=0.8)
        axes.set_yticks(range(len(throughputs)), list(throughputs))
        axes.set_ylim(len(throughputs) - 0.5, -0.5)
        reach = max(1.0, *(abs(value) for value in axes.get_xlim()))
        axes.set_xlim(-reach, reach)
        axes.set_xlabel("throughput of each session, % from the workload's median")
        figure.text(0.02, 1 - 0.3 / height, title, fontsize=12, va="center")
    return plots.svg(figure)
