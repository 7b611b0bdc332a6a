"""The answer in a pull request: the verdict first, then a narrow table, then what to do. Made for a phone.

Opinion: every word in it that a pull request's author could have written is shown as text and does nothing: no link,
no mention, no picture, no markup.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gemma3n_perf.ci.plan import Plan, State
from gemma3n_perf.ci.post import MARKER
from gemma3n_perf.stats.messages import percent

MAX_ROWS = 40
MAX_STEPS = 8
_TEXT = 300
# A colon before anything but a space could make a link, an underscore at the edge of a word emphasis.
_PLAIN = re.compile(r":(?!\s|$)|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|[^0-9A-Za-z \u00a0-\uffff,;.:_+%'\"()/=-]")
_MEND = {"loss": "keep it off where it loses, or make it faster", "no-change": "leave it out, or keep it off there"}
_LOUD = ("win", "loss", "invalid")


@dataclass(frozen=True, slots=True)
class Shown:
    """Whether a fusion's output and path were right on one class, over all its checkpoints; None is unknown."""

    fusion: str
    chip_class: str
    parity: bool | None
    dispatch: bool | None


@dataclass(frozen=True, slots=True)
class Missing:
    """A class that brought no evidence, and what to do."""

    chip_class: str | None
    verdict: str
    found: str
    remedy: str


def plain(text: str, limit: int = _TEXT) -> str:
    """Return ``text`` on one line, with every character that could mean something to Markdown as an entity."""
    line = " ".join(text.split())
    line = line if len(line) <= limit else f"{line[: limit - 3]}..."
    shown = _PLAIN.sub(lambda match: f"&#{ord(match[0])};", line)
    return re.sub(r"(?i)www\.", lambda match: f"{match[0][:-1]}&#46;", shown)


def without_measurement(plan: Plan, links: Mapping[str, str] | None = None) -> str:
    """Return the comment for a change with nothing to gate, or one that may not be measured yet."""
    head = "nothing to gate" if plan.state is State.NOTHING else "not-measured: waiting for approval"
    parts = [f"{MARKER}\n### {head}", f"{plain(plan.reason)}."]
    if plan.remedy:
        parts.append(f"Next: {plain(plan.remedy)}")
    return _joined(parts, plan, links)


def not_planned(found: str) -> str:
    """Return the comment for a change that could not even be planned, as with a policy file that has a typo."""
    return f"{MARKER}\n### not-measured: the gate could not be prepared\n\n{plain(found)}\n"


def answered(
    gate: Mapping[str, Any],
    plan: Plan,
    shown: Sequence[Shown] = (),
    missing: Sequence[Missing] = (),
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the comment for the answer of ``gemma3n-perf gate --json``."""
    parts = [f"{MARKER}\n### {plain(closing(gate, missing))}"]
    for decision in gate["decisions"]:
        cells = [cell for cell in gate["cells"] if cell["fusion"] == decision["fusion"]]
        title = f"{plain(decision['fusion'])}: {'admitted' if decision['admitted'] else 'refused'}"
        parts.append(f"**{title}**\n\n{_table(cells, shown)}")
    steps = _steps(gate, missing)
    if steps:
        parts.append("**Next**\n\n" + "\n".join(steps))
    parts += [f"Note: {plain(note)}" for note in gate.get("notes", ())[:MAX_STEPS]]
    return _joined(parts, plan, links)


def closing(gate: Mapping[str, Any], missing: Sequence[Missing] = ()) -> str:
    """Say in one line how it ended."""
    if gate["answer"] == "nothing-to-gate" and not missing:
        return "nothing to gate"
    entered = [one["fusion"] for one in gate["decisions"] if one["admitted"]]
    refused = [one["fusion"] for one in gate["decisions"] if not one["admitted"]]
    words = list(dict.fromkeys([*gate["verdicts"], *(one.verdict for one in missing)]))
    if not words:
        return f"admitted: {', '.join(entered)}"
    text = f"refused: {', '.join(words)}" + (f" ({', '.join(refused)})" if refused else "")
    return f"{text}; admitted: {', '.join(entered)}" if entered and refused else text


def _table(cells: Sequence[Mapping[str, Any]], shown: Sequence[Shown]) -> str:
    lines = ["| workload | effect [95 %] | verdict |", "| :--- | ---: | :--- |"]
    before = None
    for cell in cells[:MAX_ROWS]:
        if cell["chip_class"] != before:
            before = cell["chip_class"]
            lines.append(f"| **{plain(before)}**{_right(cell, shown)} | | |")
        word = plain(str(cell["verdict"] or "off, proved"))
        lines.append(f"| {plain(cell['workload'])} | {_effect(cell)} | {f'**{word}**' if word in _LOUD else word} |")
    if len(cells) > MAX_ROWS:
        lines.append(f"| and {len(cells) - MAX_ROWS} more, in the run | | |")
    return "\n".join(lines)


def _right(cell: Mapping[str, Any], shown: Sequence[Shown]) -> str:
    for one in shown:
        if (one.fusion, one.chip_class) == (cell["fusion"], cell["chip_class"]):
            return f" parity {_word(one.parity)}, dispatch {_word(one.dispatch)}"
    return ""


def _word(right: bool | None) -> str:
    return "unknown" if right is None else "ok" if right else "**wrong**"


def _effect(cell: Mapping[str, Any]) -> str:
    effect, low, high = (cell.get(name) for name in ("effect", "low", "high"))
    if effect is None:
        return "-"
    if low is None or high is None:
        return percent(effect)
    return f"{percent(effect)} [{', '.join(percent(value).removesuffix(' %') for value in (low, high))}]"


def _steps(gate: Mapping[str, Any], missing: Sequence[Missing]) -> list[str]:
    found = []
    for one in missing:
        where = "" if one.chip_class is None else f"{plain(one.chip_class)}: "
        found.append(f"- {where}{one.verdict}: {_told(one.found, one.remedy)}")
    absent = tuple(f" on {one.chip_class}: there is no evidence" for one in missing)
    shown: dict[str, int] = {}
    for decision in gate["decisions"]:
        for one in decision["reasons"]:
            if not one["remedy"]:
                shown[one["verdict"]] = shown.get(one["verdict"], 0) + 1
            elif not any(text in one["found"] for text in absent):
                found.append(f"- {one['verdict']}: {_told(one['found'], one['remedy'])}")
    for verdict, count in shown.items():
        # The table says where; on a phone, saying it again pushes the rest out of sight.
        found.append(f"- {plain(verdict)}, {count} in the table. Next: {_MEND.get(verdict, 'see the run')}")
    found = list(dict.fromkeys(found))
    more = len(found) - MAX_STEPS
    return found[:MAX_STEPS] + ([f"- and {more} more, in the run"] if more > 0 else [])


def _told(found: str, remedy: str) -> str:
    return f"{plain(found)}. Next: {plain(remedy)}" if remedy else plain(found)


def _joined(parts: Sequence[str], plan: Plan, links: Mapping[str, str] | None) -> str:
    found = list(parts)
    if plan.harness:
        names = ", ".join(plain(name, 80) for name in plan.harness[:3])
        more = f" and {len(plan.harness) - 3} more" if len(plan.harness) > 3 else ""
        found.append(f"This change also edits what measures or judges ({names}{more}): read that first.")
    linked = [f"[{name}]({url})" for name, url in (links or {}).items()]
    found.append(" · ".join([f"commit {plain(plan.pull.head[:12])}", *linked]))
    return "\n\n".join(found) + "\n"
