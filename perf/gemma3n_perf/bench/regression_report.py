"""What a comparison of base and head says, as paragraphs short enough for a phone, and for programs."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gemma3n_perf.bench.regression_rule import REMEDIES, RegressionRuling
from gemma3n_perf.gate.report import step
from gemma3n_perf.report import units
from gemma3n_perf.report.markdown import plain
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from gemma3n_perf.store.accepted import Accepted
from gemma3n_perf.store.codec import indented

SCHEMA = 1
MOST, MOST_ROWS = 8, 40
_HEAD = 4
"""Lines of a table before its rows."""

_LOUD = (Verdict.WIN, Verdict.LOSS, Verdict.INVALID)


def markdown(
    comparison: RegressionRuling, accepted: Sequence[Accepted] = (), earlier: Sequence[Accepted] = ()
) -> list[str]:
    """Return paragraphs: a table of class by workload, the causes, what to do next, what maintainers accepted.

    ``accepted`` are the files in force for this change, ``earlier`` all others there are.
    """
    title = "refused" if comparison.reasons else "no regression"
    lines = [f"**Base against head: {title}**", "", "| workload | effect [95 %] | verdict |", "| :--- | ---: | :--- |"]
    for result in comparison.classes:
        beside = "" if result.required else " (not required)"
        lines.append(f"| **{plain(result.chip_class)}**{beside} | | |")
        if result.same:
            lines.append("| all | - | no-change: the same program |")
        elif result.missing is not None:
            lines.append(f"| all | - | {_word(result.missing.verdict)} |")
        for one in result.compared:
            lines.append(_row(one.workload, one.judgement, accepted=one.is_accepted))
            if one.ttft is not None and one.ttft.verdict.is_claim:
                lines.append(_row(f"TTFT of {one.workload}", one.ttft, accepted=False))
    causes = _causes(comparison)
    left = len(lines) - _HEAD - MOST_ROWS
    more = [f"| and {left} more lines, in the run | | |"] if left > 0 else []
    found = ["\n".join([*lines[: _HEAD + MOST_ROWS], *more]), *([causes] if causes else [])]
    steps = _steps(comparison)
    if steps:
        more = [f"- and {len(steps) - MOST} more, in the run"] if len(steps) > MOST else []
        found.append("\n".join(["**Next**\n", *steps[:MOST], *more]))
    for title, files in (("Accepted, by a file that a maintainer approves", accepted), ("Accepted earlier", earlier)):
        listed = [
            f"- {plain(one.name)}: {units.percent(one.effect, 1)} on {plain(one.workload)}, "
            f"by {one.commit[:12]}: {plain(one.why)}"
            for one in files
        ]
        found += ["\n".join([f"**{title}**\n", *listed[-MOST:]])] if listed else []
    return found + [f"Note: {plain(note)}" for note in comparison.notes[:MOST]]


def as_json(comparison: RegressionRuling) -> bytes:
    """Return all of it as JSON."""
    tree: dict[str, Any] = {
        "schema": SCHEMA,
        "result": "refused" if comparison.reasons else "no-regression",
        "exit_code": comparison.exit_code,
        "reasons": comparison.reasons,
        "classes": comparison.classes,
        "notes": comparison.notes,
    }
    return indented(tree)


def _steps(comparison: RegressionRuling) -> list[str]:
    """One line for what the table shows, and one for each other reason, with all classes that have it."""
    shown = Counter(one.verdict for one in comparison.reasons if not one.remedy)
    found = [f"- {verdict}, {count} in the table. Next: {REMEDIES[verdict]}" for verdict, count in shown.items()]
    others: dict[str, list[str]] = {}
    for one in (one for one in comparison.reasons if one.remedy):
        others.setdefault(step(one), []).append(plain(one.chip_class or ""))
    return found + [f"- {', '.join(classes)}: {text}" for text, classes in others.items()]


def _row(title: str, judgement: Judgement, *, accepted: bool) -> str:
    effect = units.effect(judgement.effect, judgement.low, judgement.high)
    word = _word(judgement.verdict) if judgement.verdict in _LOUD else judgement.word
    return f"| {plain(title)} | {effect} | {word}{', accepted' if accepted else ''} |"


def _word(verdict: Verdict) -> str:
    return f"**{verdict}**" if verdict in _LOUD else verdict.value


def _causes(comparison: RegressionRuling) -> str:
    """What differs between the programs, and what a decode step does differently where something changed by it."""
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    explained = False
    for result in comparison.classes:
        for one in (one for one in result.compared if one.is_explained):
            explained = True
            own = tuple(cause for cause in one.causes if cause not in result.changes)
            groups.setdefault((result.chip_class, own), []).append(one.workload)
    title = "**Cause**" if explained else "What differs"
    lines = [f"{title}: {plain('; '.join(comparison.changes) or 'not known')}"]
    for (chip_class, own), names in groups.items():
        lines += [f"- {plain(chip_class)}, {plain(', '.join(names))}: {plain('; '.join(own))}"] if own else []
    # A list needs an empty line before it.
    return "\n".join([*lines[:1], "", *lines[1:]]).rstrip() if comparison.changes or explained else ""
