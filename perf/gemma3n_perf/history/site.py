"""The first page of the site: what decode does on each chip class now, how it came there, and what to read on.

Plots first, then the numbers they show, then where to look further. Nothing here is a verdict unless a duel gave it,
and what is only suspected is called so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from gemma3n_perf.gate.facts import Cell
from gemma3n_perf.history.detect import LEAST_POINTS
from gemma3n_perf.history.evidence import Evidence
from gemma3n_perf.history.pages import page, table
from gemma3n_perf.history.plots import Dot, Spread, line, ranges
from gemma3n_perf.history.series import Series, Step
from gemma3n_perf.history.upstream import Lines, Point
from gemma3n_perf.report import describe, units
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.published import Publication, references_for
from gemma3n_perf.store.types import Baseline, summarise

_RELEASE = ("version", "released", "effect", "verdict", "why not")


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
    """Return the first page."""
    sections = (
        ("latest", "Latest", "Latest", _latest(site)),
        ("history", "History", "History", _history(site)),
        ("upstream", "What releases of mlx and mlx-vlm did", "mlx and mlx-vlm", _upstream(site)),
        ("steps", "Steps", "Steps", _steps(site)),
        ("evidence", "Fusions", "Fusions", _evidence(site)),
        ("documents", "Documents", "Documents", _list(_link(*one) for one in site.documents)),
    )
    links = [(f"#{anchor}", text) for anchor, _, text, _ in sections]
    links += [("asv/index.html", "asv: this repository")] if site.asv else []
    links += [("upstream/index.html", "asv: releases")] if site.upstream else []
    parts = [
        '<p class="soft">Tokens per second of Gemma3n decode, batch 1, by workload and chip class. Numbers of two chip '
        "classes, or of two days, do not compare; a change counts as shown only where a duel showed it.</p>"
    ]
    parts += [f'<h2 id="{anchor}">{heading}</h2>\n{body}' for anchor, heading, _, body in sections]
    if site.notes:
        parts.append(f'<h2 id="notes">Left out</h2>\n{_list(map(escape, site.notes))}')
    return page("Gemma3n decode on MLX", "\n".join(parts), links)


def _latest(site: Site) -> str:
    return "\n".join(_class(one, site) for one in site.baselines) or "<p>No baseline is committed yet.</p>"


def _class(baseline: Baseline, site: Site) -> str:
    """One chip class: a plot of its baseline, the numbers, and what others published."""
    chip_class = baseline.chip.chip_class
    spreads, rows, cited = list[Spread](), list[list[str]](), list[str]()
    latest = {one.workload: one.points[-1] for one in site.series if one.chip_class == chip_class}
    for workload in baseline.workloads:
        one = summarise(baseline, workload)
        checkpoint, modality, _ = workload.split("/")
        published = references_for(site.publications, baseline.chip, checkpoint, modality)
        marks = tuple((figure.low + figure.high) / 2 for figure in (one.figure for one in published))
        spreads.append(Spread(workload, one.tokps, one.sessions_tokps, marks))
        low, high = min(one.sessions_tokps), max(one.sessions_tokps)
        bandwidth = baseline.sessions_of(workload)[-1].copy_bandwidth
        floor = None if bandwidth is None else one.streamed_bytes / bandwidth / one.tpot_s
        last = latest.get(workload)
        rows.append(
            [
                escape(workload),
                _latest_value(last.value.result, last.commit == baseline.stack.commit) if last else "-",
                f"{units.tokps(one.tokps)} {_soft(f'[{units.tokps(low)}, {units.tokps(high)}]')}",
                units.seconds(one.tpot_s),
                units.percent(floor),
                last.commit[:12] if last else "-",
            ]
        )
        cited += [escape(f"{workload}: {one.figure.tokps} tok/s, {one.engine}; {one.source}") for one in published]
    heads = (
        "workload", "latest tok/s", "baseline tok/s [range of sessions]", "time per token", "floor share", "commit",
    )  # fmt: skip
    return "\n".join(
        [
            f'<h3 id="{escape(chip_class)}">{escape(describe.chip(baseline.chip))}</h3>',
            ranges(_name("latest", chip_class), f"{chip_class}: tok/s of every workload, by session", spreads),
            '<p class="soft">Each dot is a session, the bar their median'
            f"{', a diamond what others published' if cited else ''}. Baseline: "
            f"{describe.sessions(len(baseline.sessions))} of commit {describe.commit(baseline.stack)}, "
            f"{escape(describe.dates(baseline))}; {escape(describe.stack(baseline.stack))}. Floor share: the part of "
            "the time per token that reading the weights once takes; at 100 % no fusion helps.</p>",
            table(f"{chip_class}: numbers", heads, rows, numbers=(1, 2, 3, 4)),
            _list(cited),
        ]
    )


def _latest_value(tpot_s: float | None, is_baseline: bool) -> str:
    mark = " " + _soft("(the baseline's)") if is_baseline else ""
    return units.tokps(1 / tpot_s) + mark if tpot_s is not None else "-"


def _history(site: Site) -> str:
    parts = []
    if site.asv:
        parts.append(
            '<p>By commit: <a href="asv/index.html">asv\'s pages</a>, with every point, and '
            '<a href="asv/index.html#/regressions">its list of regressions</a>.</p>'
        )
    drawn = [one for one in site.series if len(one.points) > 1]
    for one in drawn:
        steps = {step.after: _kind(step) for step in one.steps if step.standing != "refuted"}
        dots = []
        for point in one.points:
            rate = point.value.inverse()
            low, high = (end if 0 < end < math.inf else None for end in (rate.low, rate.high))
            dots.append(Dot(point.commit[:7], rate.result, low, high, steps.get(point.commit, "")))
        title = f"{one.chip_class}, {one.workload}: tok/s by commit"
        parts += [f"<h3>{escape(title)}</h3>", line(_name("h", one.chip_class, one.workload), title, dots, "tok/s")]
    if not drawn:
        classes = len({one.chip_class for one in site.series})
        parts.append(f"<p>One commit so far on each of {classes} chip classes; a line takes two.</p>")
    return "\n".join(parts)


def _upstream(site: Site) -> str:
    parts = []
    for chip_class, lines in site.upstream.items():
        for (name, workload), placed in sorted(lines.items()):
            points = [one.point for one in placed]
            anchor = max(points, key=lambda point: point.date).anchor
            dots = []
            for one in points:
                effect, low, high = (None if end is None else 100 * end for end in (one.effect, one.low, one.high))
                dots.append(Dot(one.version[:12], effect, low, high))
            title = f"{chip_class}: {workload} with releases of {name}"
            parts += [
                f"<h3>{escape(title)}</h3>",
                line(_name("u", chip_class, name, workload), title, dots, "throughput against today's, %", zero=0.0),
                f'<p class="soft">Each release in a duel with mlx {escape(anchor.mlx)} and mlx-vlm '
                f"{escape(anchor.mlx_vlm or '-')}: interleaved blocks, 95 % interval. A cross could not be built, "
                "loaded or compared; the table says why.</p>",
                table(title, _RELEASE, [_release(one) for one in points], (2,)),
            ]
    return "\n".join(parts) or "<p>No release has been measured on any chip class yet.</p>"


def _release(point: Point) -> list[str]:
    effect, inside = units.percent(point.effect, 1, sign=True), units.interval(point.low, point.high)
    verdict = {"win": "faster than today's", "loss": "slower than today's"}.get(point.verdict, point.verdict)
    return [
        escape(point.version), escape(point.released or "-"), f"{effect} {_soft(inside)}" if inside else effect,
        escape(verdict), escape(point.failure or ""),
    ]  # fmt: skip


def _steps(site: Site) -> str:
    found = [(one, step) for one in site.series for step in one.steps]
    short = sum(len(one.points) < LEAST_POINTS for one in site.series)
    known = f"{len(site.series)} series have the {LEAST_POINTS} points at least that a step can be told from"
    if site.series and short == len(site.series):
        return f"<p>None of the {known}, so whether there is one is not known yet.</p>"
    if not found:
        some = f" {len(site.series) - short} of {known}." if short else ""
        return f"<p>No step in any series is larger than its scatter and the noise floor of its class.{some}</p>"
    rows = [
        [
            escape(f"{one.chip_class}, {one.workload}"),
            f"<code>{step.after[:12]}</code> {escape(site.subjects.get(step.after, ''))}",
            f"<span class='{_kind(step)}'>{units.percent(step.change.effect, 1, sign=True)}</span>",
            escape(step.standing),
            _duel(step),
        ]
        for one, step in found
    ]
    return table("Steps", ("series", "first commit after it", "throughput", "standing", "duel"), rows, (2,))


def _kind(step: Step) -> str:
    return "loss" if step.change.slower else "win"


def _duel(step: Step) -> str:
    if step.confirmation is None:
        return f"none yet: <code>gemma3n-perf history confirm {step.before[:12]} {step.after[:12]}</code>"
    one = step.confirmation
    effect = "" if one.effect is None else f" {units.effect(one.effect, one.low, one.high)}"
    return escape(f"{one.verdict}{effect}, {one.date[:10]}")


def _evidence(site: Site) -> str:
    if not site.evidence:
        return "<p>No fusion has evidence on any chip class yet.</p>"
    rows = [_judged(one, cell) for one in site.evidence for cell in one.cells or (None,)]
    header = ("fusion", "chip class", "workload", "throughput [95 %]", "verdict", "admitted")
    found = table("Evidence of fusions, judged as one family", header, rows, (3,))
    if "docs/evidence.html" in dict(site.documents):
        found += f"<p>{_link('docs/evidence.html', 'What each fusion does, and why some have no win')}</p>"
    return found


def _judged(one: Evidence, cell: Cell | None) -> list[str]:
    first = [_link(one.address, one.name), escape(one.chip_class)]
    if cell is None:
        return [*first, "-", "-", "-", "-"]
    verdict = escape(cell.word)
    if cell.verdict in (Verdict.WIN, Verdict.LOSS):
        verdict = f"<span class='{cell.verdict}'>{verdict}</span>"
    return [
        *first,
        escape(cell.workload),
        escape(units.effect(cell.effect, cell.low, cell.high)),
        verdict,
        "yes" if one.admitted else "-",
    ]


def _link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def _soft(text: str) -> str:
    return f"<span class='soft'>{text}</span>"


def _list(items: Iterable[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{listed}</ul>" if listed else ""


def _name(*texts: str) -> str:
    return "".join(one if one.isalnum() else "-" for one in "-".join(texts))
