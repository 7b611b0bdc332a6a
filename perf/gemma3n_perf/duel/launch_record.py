"""Launches inside a record of a duel or of evidence: how they are laid out in JSON, and what is wrong with them."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch


def without_unknowns(launches: Iterable[dict[str, Any]]) -> None:
    """Leave out of every block's conditions what the platform did not tell, and steps that no worker told, in place."""
    for launch in launches:
        for block in (block for pair in (*launch["pairs"], *launch["discarded"]) for block in pair):
            block["conditions"] = {name: value for name, value in block["conditions"].items() if value is not None}
            if not block["step_s"]:
                del block["step_s"]


def lines(built: dict[str, Any], launches: Iterable[dict[str, Any]]) -> bytes:
    """Return ``built`` as JSON, indented, with each pair of blocks of its ``launches`` on one line, and a newline.

    It keeps a long record readable. The launches lose their pairs: ``built`` is of no use afterwards.
    """
    pairs: list[bytes] = []
    for launch in launches:
        for name in ("pairs", "discarded"):
            marks = []
            for pair in launch[name]:
                marks.append(f"@pair{len(pairs)}@")
                pairs.append(msgspec.json.encode(pair))
            launch[name] = marks
    head, *rest = msgspec.json.format(msgspec.json.encode(built), indent=1).split(b'"@pair')
    parts = [head]
    for piece in rest:
        number, _, tail = piece.partition(b'@"')
        parts += [pairs[int(number)], tail]
    return b"".join(parts) + b"\n"


def flaws(workload: str, launches: Sequence[Launch]) -> Iterator[tuple[str, str]]:
    """What no launch can hold: what was found, and what was expected."""
    for number, launch in enumerate(launches, start=1):
        where = f"{workload}, launch {number}"
        if not launch.pairs:
            yield f"{where} has no pair of blocks", "one or more"
        for block in (block for pair in launch.pairs for block in pair):
            for time in (block.tpot_s, *block.step_s):
                if not (math.isfinite(time) and time > 0):
                    yield f"{where}: a block of {time} s per token", "positive seconds"
            if block.faults:
                yield f"{where}: a contended block among those that count", "such pairs under discarded"
        if any({block.arm for block in pair} != set(ARMS) for pair in launch.pairs):
            yield f"{where}: a pair of one arm", "a block of each"
        steps = {len(block.step_s) for pair in launch.pairs for block in pair if block.step_s}
        if len(steps) > 1:
            yield f"{where}: blocks of {', '.join(map(str, sorted(steps)))} steps", "as many in all"
