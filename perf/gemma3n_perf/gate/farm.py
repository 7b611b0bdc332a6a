"""A farm of one's own: the table of a chip class in a policy file, and the classes that belong to other farms.

Opinion: a policy is a page that people read, so its text is edited and its comments stay; what comes of it is read by
the policy's own reader before it is written.
"""

import json
import re
import tomllib
from collections.abc import Collection
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.policy import AWAITING, MEASURED, REQUIRED, GatePolicy, customary_texts, parse_policy
from gemma3n_perf.hardware.types import Chip

START = """# What gemma3n-perf gate asks of a fusion: docs/gate.md. Changing this file changes what may be admitted.
"""
_HEADER = re.compile(r"^\[(?P<name>[^\[\]]+)\][ \t]*(?:#.*)?$", re.MULTILINE)
_REQUIRED = re.compile(r"^required[ \t]*=[ \t]*\[[^\]]*\][ \t]*(?:#.*)?\n", re.MULTILINE)


def with_machine(text: str, chip: Chip, state: str | None = None, *, park: bool = False) -> tuple[str, GatePolicy]:
    """Return the text of a policy in which ``chip`` has a machine, and what it says.

    ``state`` None keeps the class's own, else ``measured``, and ``required`` where nothing else would be.
    ``park`` has all other classes await a machine. Raises UsageError for a policy that cannot be read, or that is
    written in a way that cannot be edited here.
    """
    text = f"{text.rstrip() or START.rstrip()}\n"
    before = parse_policy(text, unfinished=True)
    name, required = chip.chip_class, list(before.required)
    others = [one for one in before.classes if one != name]
    if park:
        required = [one for one in required if one == name]
    if state is None:
        state = before.classes[name].state if name in before.classes else MEASURED
        if name in required or not [one for one in required if one != name]:
            state = REQUIRED
        elif state == AWAITING:
            state = MEASURED
    parked = {one for one in others if park}
    # What [gate] lists is said in the tables from now on, in one place.
    states = {one: AWAITING if one in parked else REQUIRED for one in others if one in parked or one in required}
    text = _without_lists(text, parked)
    for one, said in states.items():
        text = _set(text, one, {"state": said})
    known = before.classes.get(name)
    values: dict[str, str | tuple[str, ...]] = {"state": state}
    if known is None:
        values["workloads"] = customary_texts(chip.vendor)
    if known is None or name not in known.runner:
        values["runner"] = runner(chip)
    text = _set(text, name, values)
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:  # written as one inline table, for instance
        raise _by_hand(name) from error
    found = parse_policy(text)
    if found.classes[name].state != state or not parked <= set(found.awaiting):
        raise _by_hand(name)
    return text, found


def runner(chip: Chip) -> tuple[str, ...]:
    """Return the labels of a self-hosted runner on a machine of this chip, the class last."""
    platform = ("macOS", "ARM64") if chip.vendor == "apple" else ("linux",)
    return ("self-hosted", *platform, chip.chip_class)


def first_steps(policy: GatePolicy, chip_class: str, path: Path) -> tuple[str, ...]:
    """Say what is left to do once a class is in the policy."""
    labels = ",".join(policy.classes[chip_class].runner[1:])
    return (
        f"git add {path.parent.name} && git commit -m 'measure {chip_class}' && git push",
        f"register this machine's runner: ./config.sh --url https://github.com/OWNER/REPOSITORY --labels {labels}",
        "let it measure: gh workflow run nightly.yml",
    )


def _without_lists(text: str, parked: Collection[str]) -> str:
    """Take the list of required classes out of [gate], and those ``parked`` out of that of [regression]."""
    if (span := _span(text, "gate")) is not None:
        text = text[: span[0]] + _REQUIRED.sub("", text[slice(*span)]) + text[span[1] :]
    span = _span(text, "regression")
    listed = _REQUIRED.search(text, *span) if span else None
    if listed is None or not parked:
        return text
    named = re.findall(r"[\"']([^\"']+)[\"']", listed[0])
    kept = [one for one in named if one not in parked]
    line = f"required = {json.dumps(kept)}\n" if kept or not named else ""
    return text[: listed.start()] + line + text[listed.end() :]


def _set(text: str, name: str, values: dict[str, str | tuple[str, ...]]) -> str:
    """Set keys of a class's table, each on its own line; a table that is not there is added."""
    title = f"classes.{name}"
    span = _span(text, title)
    if span is None:
        text = f"{text.rstrip()}\n\n[{_quoted(title)}]\n"
        span = len(text), len(text)
    start, end = span
    table = text[start:end]
    for key, value in values.items():
        line = f"{key} = {json.dumps(list(value) if isinstance(value, tuple) else value)}\n"
        # A value in brackets may go over several lines.
        old = re.compile(rf"^{key}[ \t]*=[ \t]*(?:\[[^\]]*\]|[^\n\[]*)[^\n]*\n?", re.MULTILINE)
        table = old.sub(lambda _, line=line: line, table, count=1) if old.search(table) else line + table  # type: ignore[misc]
    return text[:start] + table + text[end:]


def _span(text: str, title: str) -> tuple[int, int] | None:
    """Return where the lines of a table begin and end; None where there is no such table."""
    headers = list(_HEADER.finditer(text))
    ends = [*(one.start() for one in headers[1:]), len(text)]
    for one, end in zip(headers, ends, strict=False):
        if re.sub(r"[\"'\s]", "", one["name"]) == title:
            return one.end() + 1, end
    return None


def _quoted(title: str) -> str:
    table, _, name = title.partition(".")
    return title if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f"{table}.{json.dumps(name)}"


def _by_hand(name: str) -> UsageError:
    return UsageError(
        f"the policy is not written as tables of their own, [classes.{name}] and others",
        expected="[classes.NAME] with its keys below it, one on a line",
        remedy="edit it by hand: docs/ci.md says what it holds",
    )
