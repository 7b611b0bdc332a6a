"""Comparisons of base and head from synthetic blocks: no machine measured any of it."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gemma3n_perf.bench.comparison import Exact
from gemma3n_perf.bench.regression import SCHEMA, Regression
from gemma3n_perf.duel import record as duels
from gemma3n_perf.duel.judgements import judgements
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.record import DuelRecord, WorkloadDuel
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Verdict
from tests.gate.evidence_files import launches

BUDGET_S = 70.0
CHANGES = ("mlx 0.32.0 -> 0.32.4",)


def record(
    chip_class: str,
    base: str,
    head: str,
    effects: Mapping[str, float],
    *,
    changes: tuple[str, ...] = CHANGES,
    exact: Mapping[str, Exact] | None = None,
    packages: str = "",
    **options: Any,
) -> Regression:
    """Return a comparison in which head is so much faster than base, by workload; ``packages`` of the base's arm."""
    raw = {name: launches([effect], per_session=8, seed=7, **options) for name, effect in effects.items()}
    made = Regression(SCHEMA, chip_class, base, head, False, f"ref:{base}{packages}", changes, exact=dict(exact or {}))
    return replace(made, duel=duel(chip_class, made.arm, head, raw))


def failed(chip_class: str, base: str, head: str, found: str, remedy: str = "") -> Regression:
    """Return the record of a base that could not be compared."""
    why = Objection(Verdict.NOT_MEASURED, found, remedy)
    return Regression(SCHEMA, chip_class, base, head, False, f"ref:{base}", failure=why)


def duel(chip_class: str, baseline: str, head: str, raw: Mapping[str, tuple[Launch, ...]]) -> DuelRecord:
    """Return the record of a duel of these launches, judged as the machine that measured would."""
    stack = Stack("3.11.7", "Linux 6.1", "0.32.4", "0.7.10", "cpu", commit=head, dirty=False)
    states = {name: ComparisonState(name, own) for name, own in raw.items()}
    date = dt.datetime(2026, 6, 30, 10, tzinfo=dt.UTC)
    judged = judgements(states, budget_s=BUDGET_S, policy=Policy(), noise=None, today=date.date())
    first = next(iter(judged))
    return DuelRecord(
        duels.SCHEMA, date.isoformat(), Chip(chip_class, "fake", "Fake"),
        {"baseline": baseline, "candidate": "here"}, {"baseline": stack, "candidate": stack},
        {"baseline": 0.0, "candidate": 0.0}, False, Policy(), BUDGET_S, 1, first, judged[first].verdict.value,
        judged[first].effect, judged[first].low, judged[first].high, judged[first].measured_s, judged[first].launches,
        tuple(WorkloadDuel(name, judged[name], own, False) for name, own in raw.items()),
    )  # fmt: skip
