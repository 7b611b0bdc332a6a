"""The page of findings: regressions upstream, from committed records and from nothing else."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.history import point_record, upstream
from gemma3n_perf.report import units
from gemma3n_perf.report.markdown import table
from gemma3n_perf.report.pages import template
from gemma3n_perf.store.codec import usable
from gemma3n_perf.store.files import contents

PAGE = PurePosixPath("findings.md")
FOLDER = Path("findings")
PRODUCTS = "two-rows.json"
"""Written by ``studies.two_rows``: what MLX's 4-bit products give, by release."""
ROTATIONS = "shared-rope.json"
"""Written by ``studies.shared_rope``: how far logits of several tokens in one forward are, by release of mlx-vlm."""
_COLUMNS = {
    PRODUCTS: {"mlx": "mlx", "rows": "rows", "K": "k", "largest error": "error", "the same twice": "same"},
    ROTATIONS: {
        "mlx-vlm": "mlx_vlm",
        "tokens in a forward": "tokens",
        "logits off by": "off",
        "with right positions": "mended",
        "the same greedy tokens": "greedy",
    },
}
"""Of the studies' records: the columns that are shown, each with the key of its values."""


def build(baselines: Path, classes: tuple[str, ...]) -> tuple[dict[PurePosixPath, bytes], list[str]]:
    """Return the page by its path below the docs folder, and what is wrong with records that were left out."""
    faults: list[str] = []
    shown = {
        "duels": _table(
            ("chip class", "workload", "from", "to", "effect [95 %]", "verdict", "launches", "date"),
            list(_duels(baselines, faults)),
        ),
        "points": _table(
            ("chip class", "workload", "release", "effect against today's [95 %]", "today's", "date"),
            [row for name in classes for row in _points(baselines, name, faults)],
        ),
        "products": _recorded(baselines, PRODUCTS, faults),
        "rotations": _recorded(baselines, ROTATIONS, faults),
    }
    text = template(Path(__file__).with_name("findings.md")).render(**shown)
    return {PAGE: text.encode() + b"\n"}, faults


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return table(header, rows, left=header) if rows else ""


def _duels(baselines: Path, faults: list[str]) -> Iterator[tuple[str, ...]]:
    for path in sorted(baselines.glob(f"*/{FOLDER.as_posix()}/*.json")):
        record = usable(partial(DUELS.read, path), faults)
        for one in record.duels if record else ():
            judged = one.judgement
            effect = units.effect(judged.effect, judged.low, judged.high)
            arms = (record.arms["baseline"], record.arms["candidate"]) if record else ()
            chip_class, date = (record.chip.chip_class, record.date[:10]) if record else ("", "")
            yield chip_class, one.workload, *arms, effect, judged.word, str(judged.launches), date


def _points(baselines: Path, chip_class: str, faults: list[str]) -> Iterator[tuple[str, ...]]:
    points, wrong = point_record.read_class(baselines, chip_class)
    faults += wrong
    listed = [one for one in points if one.line != point_record.OWN]
    for one in sorted(listed, key=lambda one: (one.line, upstream.version_key(one.version))):
        if one.verdict in ("win", "loss"):
            today = one.anchor.mlx if one.line == "mlx" else one.anchor.mlx_vlm or "-"
            effect = units.effect(one.effect, one.low, one.high, 1)
            yield chip_class, one.workload, f"{one.line} {one.version}", effect, f"{one.line} {today}", one.date[:10]


def _recorded(baselines: Path, name: str, faults: list[str]) -> str:
    """Return a table of what a study kept, one list of values a class."""
    rows, columns = list[tuple[str, ...]](), _COLUMNS[name]
    for path in sorted(baselines.glob(f"*/{name}")):
        try:
            found: list[dict[str, Any]] = json.loads(contents(path))
            rows += [(path.parent.name, *(_text(one[key]) for key in columns.values())) for one in found]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            faults.append(f"{path}: not what a study writes: {error}")
    return _table(("chip class", *columns), rows)


def _text(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
