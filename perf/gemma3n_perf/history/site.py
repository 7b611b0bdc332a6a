"""The first page of the site: what decode does on each chip class now, how it came there, and what to read on.

Opinion: plots first, then the numbers they show, then where to look further. Nothing here is a verdict unless a duel
said it, and what is only suspected is called so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from gemma3n_perf.gate.facts import Cell
from gemma3n_perf.gate.report import effect
from gemma3n_perf.history.detect import LEAST_POINTS
from gemma3n_perf.history.series import Found, Point, Series
from gemma3n_perf.history.site_page import page, table
from gemma3n_perf.history.site_plots import Dot, Spread, line, ranges
from gemma3n_perf.history.upstream import Placed
from gemma3n_perf.report import describe
from gemma3n_perf.report import rows as show
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.published import Publication, PublishedFigure, references_for
from gemma3n_perf.store.summary import summarise
from gemma3n_perf.store.types import Baseline

TITLE = "Gemma3n decode on MLX"
_EVIDENCE = "evidence.html"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fusion's evidence on one chip class: its ``source`` file, and what the gate's rules say of each workload."""

    chip_class: str
    name: str
    source: Path
    cells: tuple[Cell, ...] = ()
    admitted: bool = False

    @property
    def address(self) -> str:
        """Where the file is on the site."""
        return f"evidence/{self.chip_class}/{self.source.name}"


@dataclass(frozen=True, slots=True)
class Site:
    """All that the first page shows. ``documents`` are (address, title); ``notes`` what was left out, and why."""

    baselines: tuple[Baseline, ...]
    series: tuple[Series, ...]
    upstream: Mapping[str, Mapping[tuple[str, str], tuple[Placed, ...]]]
    publications: tuple[Publication, ...]
    documents: tuple[tuple[str, str], ...]
    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]
    subjects: Mapping[str, str] = field(default_factory=dict)
    asv: bool = True
    upstream_asv: bool = False


def index(site: Site) -> str:
    """Return the first page."""
    links = [("#latest", "Latest"), ("#history", "History"), ("#upstream", "mlx and mlx-vlm"), ("#steps", "Steps")]
    links += [("#evidence", "Fusions"), ("#documents", "Documents")]
    if site.asv:
        links.append(("asv/index.html", "asv: this repository"))
    if site.upstream_asv:
        links.append(("upstream/index.html", "asv: releases"))
    parts = [
        '<p class="soft">Tokens per second of Gemma3n decode, batch 1, by workload and chip class. Numbers of two chip '
        "classes, or of two days, do not compare; a change counts as shown only where a duel showed it.</p>",
        '<h2 id="latest">Latest</h2>',
        *(_latest(one, site) for one in site.baselines),
        *([] if site.baselines else ["<p>No baseline is committed yet.</p>"]),
        '<h2 id="history">History</h2>',
        _history(site),
        '<h2 id="upstream">What releases of mlx and mlx-vlm did</h2>',
        _upstream(site),
        '<h2 id="steps">Steps</h2>',
        _steps(site),
        '<h2 id="evidence">Fusions</h2>',
        _evidence(site),
        '<h2 id="documents">Documents</h2>',
        _list([f'<a href="{escape(address)}">{escape(title)}</a>' for address, title in site.documents]),
    ]
    if site.notes:
        parts += ['<h2 id="notes">Left out</h2>', _list([escape(note) for note in site.notes])]
    return page(TITLE, "\n".join(parts), links=links)


def _latest(baseline: Baseline, site: Site) -> str:
    chip = baseline.chip
    spreads, rows, cited = list[Spread](), list[list[str]](), list[str]()
    newest = {one.workload: one for one in site.series if one.chip_class == chip.chip_class}
    for workload in baseline.workloads:
        one = summarise(baseline, workload)
        measured = baseline.sessions_of(workload)
        checkpoint, modality, _ = workload.split("/")
        published = references_for(site.publications, chip, checkpoint, modality)
        marks = tuple((one.figure.low + one.figure.high) / 2 for one in published)
        low, high = min(one.sessions_tokps), max(one.sessions_tokps)
        spreads.append(Spread(workload, one.tokps, low, high, one.sessions_tokps, marks))
        bandwidth = measured[-1].copy_bandwidth
        floor = None if bandwidth is None else one.streamed_bytes / bandwidth / one.tpot_s
        last = newest[workload].points[-1] if workload in newest and newest[workload].points else None
        rows.append(
            [
                escape(workload),
                _latest_value(last, baseline),
                f"{show.tokps(one.tokps)} <span class='soft'>[{show.tokps(low)}, {show.tokps(high)}]</span>",
                show.seconds(one.tpot_s),
                show.percent(floor),
                escape(last.commit[:12]) if last else "-",
            ]
        )
        cited += [_citation(workload, one) for one in published]
    name = f"latest-{chip.chip_class}"
    title = f"{chip.chip_class}: tok/s of every workload, by session"
    diamond = ", a diamond what others published" if cited else ""
    plot = ranges(_name(name), title, spreads)
    heads = (
        "workload",
        "latest tok/s",
        "baseline tok/s [range of sessions]",
        "time per token",
        "floor share",
        "commit",
    )
    return "\n".join(
        [
            f'<h3 id="{escape(chip.chip_class)}">{escape(describe.chip(chip))}</h3>',
            plot,
            f'<p class="soft">Each dot is a session, the bar their median{diamond}. Baseline: '
            f"{describe.sessions(len(baseline.sessions))} of commit {describe.commit(baseline.stack)}, "
            f"{escape(describe.dates(baseline))}; {escape(describe.stack(baseline.stack))}. Floor share: the part of "
            "the time per token that reading the weights once takes; at 100 % no fusion helps.</p>",
            table(f"{chip.chip_class}: numbers", heads, rows, numbers=(1, 2, 3, 4)),
            _list(cited),
        ]
    )


def _latest_value(last: Point | None, baseline: Baseline) -> str:
    if last is None or last.value.result is None:
        return "-"
    same = last.commit == baseline.stack.commit
    return show.tokps(1 / last.value.result) + (" <span class='soft'>(the baseline's)</span>" if same else "")


def _citation(workload: str, one: PublishedFigure) -> str:
    return f"{escape(workload)}: {escape(one.figure.tokps)} tok/s, {escape(one.engine)}; {escape(one.source)}"


def _history(site: Site) -> str:
    drawn = [one for one in site.series if len(one.points) > 1]
    parts = []
    if site.asv:
        parts.append(
            '<p>By commit: <a href="asv/index.html">asv\'s pages</a>, with every point, and '
            '<a href="asv/index.html#/regressions">its list of regressions</a>.</p>'
        )
    for one in drawn:
        marks = {found.after: found for found in one.found if found.standing != "refuted"}
        dots = [
            Dot(
                point.commit[:7],
                None if point.value.result is None else 1 / point.value.result,
                1 / point.value.high if 0 < point.value.high < math.inf else None,
                1 / point.value.low if 0 < point.value.low < math.inf else None,
                ("loss" if marks[point.commit].step.slower else "win") if point.commit in marks else "",
            )
            for point in one.points
        ]
        title = f"{one.chip_class}, {one.workload}: tok/s by commit"
        parts += [f"<h3>{escape(title)}</h3>", line(_name(f"h-{one.chip_class}-{one.workload}"), title, dots, "tok/s")]
    if not drawn:
        classes = len({one.chip_class for one in site.series})
        parts.append(f"<p>One commit so far on each of {classes} chip classes; a line takes two.</p>")
    return "\n".join(parts)


def _upstream(site: Site) -> str:
    parts = []
    for chip_class, lines in site.upstream.items():
        for (name, workload), placed in sorted(lines.items()):
            anchor = max((one.point for one in placed), key=lambda point: point.date).anchor
            dots = [
                Dot(one.version[:12], _percent(one.point.effect), _percent(one.point.low), _percent(one.point.high))
                for one in placed
            ]
            title = f"{chip_class}: {workload} with releases of {name}"
            key = _name(f"u-{chip_class}-{name}-{workload}")
            heads = ("version", "released", "effect", "verdict", "why not")
            parts += [
                f"<h3>{escape(title)}</h3>",
                line(key, title, dots, "throughput against today's, %", zero=0.0),
                f'<p class="soft">Each release in a duel with mlx {escape(anchor.mlx)} and mlx-vlm '
                f"{escape(anchor.mlx_vlm or '-')}: interleaved blocks, 95 % interval. A cross could not be built, "
                "loaded or compared; the table says why.</p>",
                table(title, heads, [_release(one) for one in placed], (2,)),
            ]  # fmt: skip
    return "\n".join(parts) if parts else "<p>No release has been measured on any chip class yet.</p>"


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _release(one: Placed) -> list[str]:
    point = one.point
    effect = "-" if point.effect is None else show.percent(point.effect, 1, sign=True)
    if point.low is not None and point.high is not None:
        low, high = (show.percent(value, 1, sign=True).removesuffix(" %") for value in (point.low, point.high))
        effect += f" <span class='soft'>[{low}, {high}]</span>"
    words = {"win": "faster than today's", "loss": "slower than today's"}
    return [
        escape(one.version), escape(point.released or "-"), effect, escape(words.get(point.verdict, point.verdict)),
        escape(point.failure or ""),
    ]  # fmt: skip


def _steps(site: Site) -> str:
    found = [(one, step) for one in site.series for step in one.found]
    short = sum(len(one.points) < LEAST_POINTS for one in site.series)
    tell = f"{len(site.series)} series have the {LEAST_POINTS} points at least that a step can be told from"
    if site.series and short == len(site.series):
        return f"<p>None of the {tell}, so whether there is one is not known yet.</p>"
    if not found:
        looked = f" {len(site.series) - short} of {tell}." if short else ""
        return f"<p>No step in any series is larger than its scatter and the noise floor of its class.{looked}</p>"
    rows = [
        [
            f"{escape(one.chip_class)}, {escape(one.workload)}",
            f"<code>{step.after[:12]}</code> {escape(site.subjects.get(step.after, ''))}",
            _change(step),
            escape(step.standing),
            _duel(step),
        ]
        for one, step in found
    ]
    return table("Steps", ("series", "first commit after it", "throughput", "standing", "duel"), rows, (2,))


def _change(found: Found) -> str:
    kind = "loss" if found.step.slower else "win"
    return f"<span class='{kind}'>{show.percent(found.step.effect, 1, sign=True)}</span>"


def _duel(step: Found) -> str:
    if step.confirmed is None:
        return f"none yet: <code>gemma3n-perf history confirm {step.before[:12]} {step.after[:12]}</code>"
    one = step.confirmed
    effect = "" if one.effect is None else f" {show.percent(one.effect, 2, sign=True)}"
    if one.low is not None and one.high is not None:
        effect += f" [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
    return escape(f"{one.verdict}{effect}, {one.date[:10]}")


def _evidence(site: Site) -> str:
    if not site.evidence:
        return "<p>No fusion has evidence on any chip class yet.</p>"
    rows = [_measured(one, cell) for one in site.evidence for cell in one.cells or (None,)]
    header = ("fusion", "chip class", "workload", "throughput [95 %]", "verdict", "admitted")
    found = table("Evidence of fusions, judged as one family", header, rows, (3,))
    more = next((address for address, _ in site.documents if address.endswith(f"/{_EVIDENCE}")), None)
    return found + (
        f'<p><a href="{escape(more)}">What each fusion does, and why some have no win</a></p>' if more else ""
    )


def _measured(one: Evidence, cell: Cell | None) -> list[str]:
    file = f'<a href="{escape(one.address)}">{escape(one.name)}</a>'
    if cell is None:
        return [file, escape(one.chip_class), "-", "-", "-", "-"]
    word = escape(cell.word)
    kind = {Verdict.WIN: "win", Verdict.LOSS: "loss"}.get(cell.verdict) if cell.verdict else None
    verdict = f"<span class='{kind}'>{word}</span>" if kind else word
    admitted = "yes" if one.admitted else "-"
    return [file, escape(one.chip_class), escape(cell.workload), escape(effect(cell)), verdict, admitted]


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def _name(text: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in text)
