"""The site's own pages: a first one that answers three questions on one screen, and behind it all that it rests on.

How fast is each workload on each chip class now, did anything change, what does each fusion do where. Nothing here is
a verdict unless a duel gave it, and what is only suspected is called so.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.history.changes import changes, failure_text
from gemma3n_perf.history.evidence import Evidence, matrix
from gemma3n_perf.history.pages import page
from gemma3n_perf.history.plots import Dot, Spread, line, ranges
from gemma3n_perf.history.point_record import Point
from gemma3n_perf.history.series import LEAST_POINTS, Series
from gemma3n_perf.history.upstream import Anchored, Lines
from gemma3n_perf.report import describe, units
from gemma3n_perf.report.pages import template
from gemma3n_perf.store.files import SHORT_COMMIT
from gemma3n_perf.store.published import Publication, references_for
from gemma3n_perf.store.types import Baseline, WorkloadSummary, summarise


@dataclass(frozen=True, slots=True)
class Site:
    """All that the pages show.

    anchored   commits of this repository duelled against an anchor, in commit order
    documents  (address, title) of each
    notes      what was left out, and why
    awaiting   chip classes of the policy that have no machine yet
    subjects   first lines of commits' messages, by hash
    asv        whether asv's pages of this repository are there
    """

    baselines: Sequence[Baseline]
    series: Sequence[Series]
    anchored: Anchored
    upstream: Lines
    publications: Sequence[Publication]
    documents: Sequence[tuple[str, str]]
    evidence: Sequence[Evidence]
    notes: tuple[str, ...]
    subjects: Mapping[str, str]
    asv: bool
    awaiting: tuple[str, ...] = ()


PAGES = {
    "index": "Gemma3n decode on MLX",
    "speed": "Speed in detail",
    "history": "History",
    "fusions": "Evidence of fusions",
    "documents": "Documents",
}
"""Titles by the name of the file, whose text is in ``site_<name>.html``."""


def pages(site: Site) -> dict[str, str]:
    """Return every page of our own but the documents, by file name."""
    links = [(f"{name}.html", title) for name, title in PAGES.items() if name != "index"]
    links = [("index.html", "Now"), *links]
    links += [("asv/index.html", "asv: commits")] if site.asv else []
    links += [(f"upstream/{line}/index.html", f"asv: {line}") for line in _lines_of(site.upstream)]
    shown = {
        "site": site,
        "classes": [_class(one, site) for one in site.baselines],
        "changes": [
            (one.chip.chip_class, list(changes(one.chip.chip_class, site.anchored, site.upstream, site.series)))
            for one in site.baselines
        ],
        "matrix": matrix(site.evidence),
        "commits": [_commits(*one) for one in site.anchored.items()],
        "lines": [_line(one) for one in site.series if len(one.points) > 1],
        "releases": list(_releases(site.upstream)),
        "describe": describe,
        "interval": units.interval,
        "least": LEAST_POINTS,
        "long": sum(len(one.points) >= LEAST_POINTS for one in site.series),
        "steps": [(one, step) for one in site.series for step in one.steps],
        "explained": "docs/evidence.html" in dict(site.documents),
        "findings": "docs/findings.html" in dict(site.documents),
        "why": failure_text,
    }
    made = {}
    for name, title in PAGES.items():
        one = template(
            Path(__file__).with_name(f"site_{name}.html"),
            html=escape,
            tokps=units.tokps,
            seconds=units.seconds,
            percent=units.percent,
            effect=lambda one: units.effect(one.effect, one.low, one.high),
            breakable=lambda text: escape(text).replace("-", "-<wbr>").replace("/", "/<wbr>").replace("+", "+<wbr>"),
        )
        made[f"{name}.html"] = page(title, one.render(**shown).strip("\n"), links)
    return made


def _lines_of(upstream: Lines) -> list[str]:
    return sorted({name for by_line in upstream.values() for name, _ in by_line})


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
                "between": _between(one),
                "low": min(one.sessions_tokps),
                "high": max(one.sessions_tokps),
                "tpot_s": one.tpot_s,
                "floor": None if bandwidth is None else one.streamed_bytes / bandwidth / one.tpot_s,
                "floor_tokps": None if bandwidth is None else bandwidth / one.streamed_bytes,
                "commit": commit,
            }
        )
        cited += [escape(f"{workload}: {one.figure.tokps} tok/s, {one.engine}; {one.source}") for one in published]
    title = f"{chip_class}: tok/s of every workload, by session"
    plot = ranges(_name("latest", chip_class), title, spreads)
    return {"baseline": baseline, "name": chip_class, "plot": plot, "rows": rows, "cited": cited}


def _between(one: WorkloadSummary) -> str:
    """The 95 % interval of a workload's throughput, from the spread between sessions; empty for a single one."""
    logs = [math.log(value) for value in one.sessions_tokps]
    if len(logs) < 2:
        return ""
    half = float(stdtrit(len(logs) - 1, 0.975)) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = (units.tokps(one.tokps * math.exp(sign * half)) for sign in (-1, 1))
    return f"[{low}, {high}]"


def _commits(where: tuple[str, str], points: Mapping[str, tuple[Point, Any]]) -> tuple[str, str, Point]:
    """Return the title, the plot and the newest point of commits against their anchor."""
    chip_class, workload = where
    listed = [one for one, _ in points.values()]
    anchor = (listed[-1].anchor.commit or "")[:SHORT_COMMIT]
    title = f"{chip_class}: {workload} by commit, against {anchor}"
    name = _name("c", chip_class, workload)
    return title, line(name, title, _dots(listed, 7), f"throughput against {anchor}'s, %", zero=0.0), listed[-1]


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
            title = f"{chip_class}: {workload} with releases of {name}"
            unit = "throughput against today's, %"
            plot = line(_name("u", chip_class, name, workload), title, _dots(points, 12), unit, zero=0.0)
            yield title, plot, max(points, key=lambda point: point.date).anchor, points


def _dots(points: Iterable[Point], letters: int) -> list[Dot]:
    dots = []
    for one in points:
        effect, low, high = (None if end is None else 100 * end for end in (one.effect, one.low, one.high))
        dots.append(Dot(one.version[:letters], effect, low, high))
    return dots


def _name(*texts: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in "-".join(texts))
