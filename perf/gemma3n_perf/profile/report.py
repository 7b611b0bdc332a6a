"""A profile for readers: a few lines for a terminal, and the page of a chip class with its plots.

A page is made from the class's profile.json and its fusions' evidence, and from nothing else. What it says is in
``page.md``, what a terminal shows in ``terminal.txt``.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate import record as evidence
from gemma3n_perf.profile import headroom, record
from gemma3n_perf.profile.headroom import Tried
from gemma3n_perf.profile.histogram import reason
from gemma3n_perf.profile.trace import gaps
from gemma3n_perf.profile.types import Deviation, Estimate, Histogram, Profile, WorkloadProfile
from gemma3n_perf.report import describe, units
from gemma3n_perf.report.markdown import escape
from gemma3n_perf.report.pages import template
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import admitted
from gemma3n_perf.workload.presets import PRESETS

FOLDER = PurePosixPath("profiles")
_PUBLISHED_STREAM = {"e4b-4bit": 2.472e9}
"""Bytes of the published streaming floor (lablup/mlxcel #345): attention, MLP and head."""


def render(profile: WorkloadProfile) -> str:
    """Return the lines of one workload for a terminal, conclusion first."""
    found = headroom.decide(headroom.summarise(profile))
    return _filled("terminal.txt", one=profile, found=found).rstrip("\n")


def of_stored(baselines: Path) -> dict[PurePosixPath, bytes]:
    """Return the pages and plots of all stored profiles, by path below the docs folder.

    Raises UsageError where there is none, MalformedRecordError.
    """
    profiles = record.read_all(baselines)
    if not profiles:
        raise UsageError(
            f"no profile below {baselines}",
            expected="a folder of baselines in which a chip class has a profile.json",
            remedy="pass --baselines DIR, or take one: gemma3n-perf profile",
        )
    files: dict[PurePosixPath, bytes] = {}
    for profile in profiles:
        files |= build(profile, tried(baselines, profile.chip.chip_class))
    return files


def tried(baselines: Path, chip_class: str) -> dict[str, tuple[Tried, ...]]:
    """Return the fusions with sound evidence on a class, by workload. Raises MalformedRecordError."""
    found: dict[str, tuple[Tried, ...]] = {}
    folder = baselines / chip_class / admitted.FOLDER
    for path in sorted(set(folder.glob("*.json")) - {folder / admitted.ADMITTED}):
        of = evidence.read(path)
        for one in of.workloads if of.enabled and of.verdict != Verdict.INVALID else ():
            low, high = one.judgement.low, one.judgement.high
            if low is not None and high is not None and math.isfinite(high):
                found[one.workload] = (*found.get(one.workload, ()), Tried(of.fusion, low, high))
    return found


def build(profile: Profile, tries: Mapping[str, Sequence[Tried]]) -> dict[PurePosixPath, bytes]:
    """Return the page and the plots of a class, by path below the docs folder; ``tries`` are by workload."""
    from gemma3n_perf.profile.plots import drawings  # matplotlib takes a moment to import

    name, files, workloads = profile.chip.chip_class, dict[PurePosixPath, bytes](), []
    for one in profile.workloads:
        drawn = dict(drawings(one))
        stem = f"{name}-{one.workload.replace('/', '-')}"
        files |= {FOLDER / f"{stem}-{kind}.svg": svg for kind, svg in drawn.items()}
        workloads.append((one, headroom.decide(headroom.summarise(one, tries.get(one.workload, ()))), drawn))
    taken = [each for one in profile.workloads for each in one.taken.values()]
    text = _filled(
        "page.md",
        name=name,
        profile=profile,
        describe=describe,
        days=sorted({one.date[:10] for one in taken}),
        commits=sorted(
            {(one.commit or "unknown")[:12] + (" with uncommitted changes" if one.dirty else "") for one in taken}
        ),
        workloads=workloads,
        published=_PUBLISHED_STREAM,
        gaps=gaps,
        why=_why,
    )
    return files | {FOLDER / f"{name}.md": text.encode()}


def _filled(name: str, /, **values: Any) -> str:
    return template(
        Path(__file__).with_name(name),
        ms=partial(_scaled, scale=1e3, spec=".2f", unit=" ms"),
        us=partial(_scaled, scale=1e6, spec="+.0f", unit=" us"),
        share=partial(_scaled, scale=100, spec=".0f", unit=" %"),
        ratio=partial(_scaled, scale=1, spec=".3f", unit=""),
        rate=lambda bytes_per_s: f"{units.size(round(bytes_per_s))}/s",
        effect=lambda knob: units.effect(knob.effect, knob.low, knob.high, 1),
        cell=escape,
        percent=units.percent,
        seconds=units.seconds,
        size=units.size,
    ).render(values)


def _scaled(value: Estimate, scale: float, spec: str, unit: str) -> str:
    middle, low, high = (f"{scale * one:{spec}}" for one in (value.value, value.low, value.high))
    return f"{middle}{unit} [{low}, {high}]"


def _why(row: Deviation, against: str, found: Histogram, checkpoint: str) -> str:
    """A preset's reasons for published counts are today's; another checkpoint's those of the day it was profiled."""
    if against != "published":
        return row.why or "-"
    if checkpoint not in PRESETS:
        return row.why or "not explained"
    known = reason(row.name, row.before, row.after, found.operations, PRESETS[checkpoint].config())
    return known or "not explained"
