"""How blocks stand in a file: conditions once for all blocks that share them, times in columns of whole nanoseconds.

A launch of short blocks has hundreds, all read under a few conditions. In memory each has its own, as it was measured.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import msgspec

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.pairs import NS

_LETTERS = {arm[0]: arm for arm in ARMS}
_PAIRS = ("pairs", "discarded")


class _Stretch(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Blocks in the order they ran: ``arms`` by first letter, ``tpot_ns`` and ``seconds_ns`` of each, the latter left
    out where a block is one step; ``step_ns`` of each of their steps, where a worker reported them."""

    arms: str
    tpot_ns: list[int]
    conditions: dict[str, Any]
    faults: list[str] = []
    seconds_ns: list[int] | None = None
    step_ns: list[list[int]] | None = None


def fold(launch: dict[str, Any]) -> None:
    """Lay the blocks of a launch, as JSON, out in stretches, in place."""
    for name in _PAIRS:
        blocks = [_tidy(block) for pair in launch[name] for block in pair]
        groups = groupby(blocks, key=lambda block: (block["conditions"], block["faults"]))
        launch[name] = [msgspec.to_builtins(_stretch(list(group))) for _, group in groups]


def unfold(launch: dict[str, Any]) -> None:
    """Turn stretches back into pairs of blocks, in place; a launch of an older record has them already.

    Raises ValueError for what is neither.
    """
    for name in _PAIRS:
        found = launch.get(name)
        if isinstance(found, list) and found and isinstance(found[0], dict):
            blocks = [block for one in msgspec.convert(found, list[_Stretch]) for block in _blocks(one)]
            if len(blocks) % 2:
                raise ValueError(f"{len(blocks)} blocks do not make pairs")
            launch[name] = [list(pair) for pair in zip(blocks[::2], blocks[1::2], strict=True)]


def _tidy(block: dict[str, Any]) -> dict[str, Any]:
    conditions = {name: value for name, value in block["conditions"].items() if value is not None}
    return block | {"conditions": conditions}


def _stretch(blocks: list[dict[str, Any]]) -> _Stretch:
    tpot, seconds = (_whole_ns(block[name] for block in blocks) for name in ("tpot_s", "seconds"))
    steps = [_whole_ns(block["step_s"]) for block in blocks]
    return _Stretch(
        "".join(block["arm"][0] for block in blocks),
        tpot,
        blocks[0]["conditions"],
        list(blocks[0]["faults"]),
        None if seconds == tpot else seconds,
        steps if any(steps) else None,
    )


def _whole_ns(seconds: Iterable[float]) -> list[int]:
    # No time is infinite: a reader refuses the 0.
    return [round(one * 10**NS) if math.isfinite(one) else 0 for one in seconds]


def _blocks(one: _Stretch) -> Iterator[dict[str, Any]]:
    count = len(one.arms)
    seconds, steps = one.seconds_ns or one.tpot_ns, one.step_ns or [[]] * count
    columns = zip(one.arms, one.tpot_ns, seconds, steps, strict=True)
    for letter, tpot_ns, seconds_ns, step_ns in columns:
        yield {
            "arm": _LETTERS.get(letter, letter),
            "tpot_s": tpot_ns / 10**NS,
            "seconds": seconds_ns / 10**NS,
            "conditions": dict(one.conditions),
            "faults": list(one.faults),
            "step_s": [step / 10**NS for step in step_ns],
        }
