"""The first page of the site: what decode does on each chip class now, how it came there, and what to read on.

Plots first, then the numbers they show, then where to look further. Nothing here is a verdict unless a duel gave it,
and what is only suspected is called so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from gemma3n_perf.gate.admission import recorded
from gemma3n_perf.gate.change import parts
from gemma3n_perf.gate.facts import Cell
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.history.pages import page
from gemma3n_perf.history.plots import Dot, Spread, line, ranges
from gemma3n_perf.history.series import LEAST_POINTS, Series
from gemma3n_perf.history.upstream import Lines, Point
from gemma3n_perf.report import describe, units
from gemma3n_perf.report.pages import template
from gemma3n_perf.store.published import Publication, references_for
from gemma3n_perf.store.types import Baseline, summarise


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fusion's evidence on one chip class: its ``source`` file, and what the gate's rules say of each workload."""

    chip_class: str
    name: str
    source: Path
    cells: tuple[Cell, ...]
    admitted: bool

    @property
    def address(self) -> str:
        """Where the file is on the site."""
        return f"evidence/{self.chip_class}/{self.source.name}"


def recorded_evidence(baselines: Path) -> tuple[list[Evidence], list[str]]:
    """Return all committed evidence, the largest effect of each class first, and what was left out of it."""
    faults: list[str] = []
    found = recorded(baselines, faults)
    listed = []
    for path, record in found.evidence.items():
        name, chip_class = record.fusion, record.chip.chip_class
        cells = tuple(one for one in found.ruling.cells if (one.fusion, one.chip_class) == (name, chip_class))
        listed.append(Evidence(chip_class, name, path, cells, found.admitted[chip_class] == parts(name)))

    def place(one: Evidence) -> tuple[str, float, str]:
        largest = max((cell.effect for cell in one.cells if cell.effect is not None), default=-1.0)
        return one.chip_class, -largest, one.name

    return sorted(listed, key=place), faults


@dataclass(frozen=True, slots=True)
class Site:
    """All that the first page shows.

    documents  (address, title) of each
    notes      what was left out, and why
    subjects   first lines of commits' messages, by hash
    asv        whether asv's pages of this repository are there
    """

    baselines: Sequence[Baseline]
    series: Sequence[Series]
    upstream: Lines
    publications: Sequence[Publication]
    documents: Sequence[tuple[str, str]]
    evidence: Sequence[Evidence]
    notes: tuple[str, ...]
    subjects: Mapping[str, str]
    asv: bool


def index(site: Site) -> str:
    """Return the first page, whose text is in ``first.html``."""
    long = sum(len(one.points) >= LEAST_POINTS for one in site.series)
    first = template(
        Path(__file__).with_name("first.html"),
        html=escape,
        tokps=units.tokps,
        seconds=units.seconds,
        percent=units.percent,
        effect=lambda one: units.effect(one.effect, one.low, one.high),
    )
    body = first.render(
        site=site,
        classes=[_class(one, site) for one in site.baselines],
        lines=[_line(one) for one in site.series if len(one.points) > 1],
        releases=list(_releases(site.upstream)),
        describe=describe,
        interval=units.interval,
        least=LEAST_POINTS,
        long=long,
        steps=[(one, step) for one in site.series for step in one.steps],
        explained="docs/evidence.html" in dict(site.documents),
    )
    links = [("#latest", "Latest"), ("#history", "History"), ("#upstream", "mlx and mlx-vlm"), ("#steps", "Steps")]
    links += [("#evidence", "Fusions"), ("#documents", "Documents")]
    links += [("asv/index.html", "asv: this repository")] if site.asv else []
    links += [("upstream/index.html", "asv: releases")] if site.upstream else []
    return page("Gemma3n decode on MLX", body.removesuffix("\n"), links)


def _class(baseline: Baseline, site: Site) -> dict[str, Any]:
    """One chip class: a plot of its baseline, the numbers, and what others published."""
    chip_class = baseline.chip.chip_class
    spreads, rows, cited = list[Spread](), list[dict[str, Any]](), list[str]()
    latest = {one.workload: list(one.points.items())[-1] for one in site.series if one.chip_class == chip_class}
    for workload in baseline.workloads:
        one = summarise(baseline, workload)
        checkpoint, modality, _ = workload.split("/")
        published = references_for(site.publications, baseline.chip, checkpoint, modality)
        marks = tuple((one.figure.low + one.figure.high) / 2 for one in published)
        spreads.append(Spread(workload, one.tokps, one.sessions_tokps, marks))
        bandwidth = baseline.sessions_of(workload)[-1].copy_bandwidth
        commit, value = latest.get(workload, ("-", None))
        result = value.result if value else None
        rows.append(
            {
                "workload": workload,
                "latest": "-" if result is None else units.tokps(1 / result),
                "same": result is not None and commit == baseline.stack.commit,
                "tokps": one.tokps,
                "low": min(one.sessions_tokps),
                "high": max(one.sessions_tokps),
                "tpot_s": one.tpot_s,
                "floor": None if bandwidth is None else one.streamed_bytes / bandwidth / one.tpot_s,
                "commit": commit,
            }
        )
        cited += [escape(f"{workload}: {one.figure.tokps} tok/s, {one.engine}; {one.source}") for one in published]
    title = f"{chip_class}: tok/s of every workload, by session"
    plot = ranges(_name("latest", chip_class), title, spreads)
    return {"baseline": baseline, "plot": plot, "rows": rows, "cited": cited}


def _line(one: Series) -> tuple[str, str]:
    """Return the title and the plot of a series."""
    kinds = {step.after: "loss" if step.change.slower else "win" for step in one.steps if step.standing != "refuted"}
    dots = []
    for commit, value in one.points.items():
        rate = value.inverse()
        low, high = (end if 0 < end < math.inf else None for end in (rate.low, rate.high))
        dots.append(Dot(commit[:7], rate.result, low, high, kinds.get(commit, "")))
    title = f"{one.chip_class}, {one.workload}: tok/s by commit"
    return title, line(_name("h", one.chip_class, one.workload), title, dots, "tok/s")


def _releases(upstream: Lines) -> Iterator[tuple[str, str, Stack, list[Point]]]:
    """Yield the title, the plot, today's stack and the points of each series of releases."""
    for chip_class, lines in upstream.items():
        for (name, workload), placed in sorted(lines.items()):
            points = [point for point, _ in placed]
            dots = []
            for one in points:
                effect, low, high = (None if end is None else 100 * end for end in (one.effect, one.low, one.high))
                dots.append(Dot(one.version[:12], effect, low, high))
            title = f"{chip_class}: {workload} with releases of {name}"
            plot = line(_name("u", chip_class, name, workload), title, dots, "throughput against today's, %", zero=0.0)
            yield title, plot, max(points, key=lambda point: point.date).anchor, points


def _name(*texts: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in "-".join(texts))
