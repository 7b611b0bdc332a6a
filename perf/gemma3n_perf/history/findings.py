"""The page of findings: regressions upstream, from committed records and from nothing else."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.history import upstream
from gemma3n_perf.report import units
from gemma3n_perf.report.markdown import table
from gemma3n_perf.report.pages import template
from gemma3n_perf.store.codec import usable

PAGE = PurePosixPath("findings.md")
FOLDER = Path("findings")
PRODUCTS = "two-rows.json"
"""Written by ``studies.two_rows``: what MLX's 4-bit products give, by release."""


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
            [row for name in classes for row in _points(baselines, name)],
        ),
        "products": _table(
            ("chip class", "mlx", "rows", "K", "largest error", "the same twice"), list(_products(baselines, faults))
        ),
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


def _points(baselines: Path, chip_class: str) -> Iterator[tuple[str, ...]]:
    listed = [one for one in upstream.read_class(baselines, chip_class)[0] if one.line != upstream.OWN]
    for one in sorted(listed, key=lambda one: (one.line, upstream.version_key(one.version))):
        if one.verdict in ("win", "loss"):
            today = one.anchor.mlx if one.line == "mlx" else one.anchor.mlx_vlm or "-"
            effect = units.effect(one.effect, one.low, one.high, 1)
            yield chip_class, one.workload, f"{one.line} {one.version}", effect, f"{one.line} {today}", one.date[:10]


def _products(baselines: Path, faults: list[str]) -> Iterator[tuple[str, ...]]:
    for path in sorted(baselines.glob(f"*/{PRODUCTS}")):
        try:
            found: list[dict[str, Any]] = json.loads(path.read_bytes())
            rows = [
                (path.parent.name, one["mlx"], str(one["rows"]), str(one["k"]), one["error"], str(one["same"]).lower())
                for one in found
            ]
        except (ValueError, KeyError, TypeError) as error:
            faults.append(f"{path}: not what studies.two_rows writes: {error}")
        else:
            yield from rows
