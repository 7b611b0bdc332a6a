"""Why evidence does not count before anything is judged: age, versions, parity, dispatch, memory, duplicates."""

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from typing import Any

from gemma3n_perf.gate.facts import Checked, EvidenceFacts, Objection
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.stats.verdicts import Verdict

_AGAIN = "measure it again: pytest perf/ --fusion {name}"


def objections(
    record: EvidenceFacts, others: Sequence[EvidenceFacts], policy: GatePolicy, today: dt.date
) -> tuple[Objection, ...]:
    """Return all that speaks against a piece of evidence; ``others`` is all evidence at hand, this one included."""
    if record.objections:
        return record.objections
    return tuple([*_dated(record, policy, today), *_versioned(record, others, policy), *_all_sound(record, policy)])


def conflicting(found: Sequence[EvidenceFacts]) -> tuple[Objection, ...]:
    """Object to several different records of one fusion on one class: to choose among them would be to pick."""
    names = ", ".join(one.source for one in found)
    said = f"{len(found)} different records of {found[0].fusion} on {found[0].chip_class}: {names}"
    return (Objection(Verdict.INVALID, said, "keep the one that was measured last and remove the others"),)


def worst(against: Sequence[Objection]) -> Objection:
    """Return the objection that decides: the first ``invalid``, or the first of all."""
    return next((one for one in against if one.verdict is Verdict.INVALID), against[0])


def _dated(record: EvidenceFacts, policy: GatePolicy, today: dt.date) -> Iterator[Objection]:
    again = _AGAIN.format(name=record.fusion)
    if record.date is None:
        yield Objection(Verdict.INVALID, f"{record.source} has no date", again)
        return
    age = (today - record.date).days
    if age > policy.max_age_days:
        found = f"stale: measured {age} days ago, and evidence counts for {policy.max_age_days}"
        yield Objection(Verdict.NOT_MEASURED, found, again)
    if age < -1:
        found = f"dated {record.date.isoformat()}, which is still to come"
        yield Objection(Verdict.INVALID, found, "set the clock of the machine that measured it, and measure again")


def _versioned(record: EvidenceFacts, others: Sequence[EvidenceFacts], policy: GatePolicy) -> Iterator[Objection]:
    if record.versions is None:
        return
    for package, pinned, have in zip(("mlx", "mlx-vlm"), (policy.mlx, policy.mlx_vlm), record.versions, strict=True):
        if pinned is not None and have != pinned:
            found = f"measured with {package} {have}, and the policy asks for {pinned}"
            yield Objection(Verdict.NOT_MEASURED, found, f"measure with {package} {pinned}, or change the policy")
    for other in others:
        mates = other.fusion == record.fusion and other.versions is not None and not other.objections
        if mates and other.versions != record.versions and _older(record, other):
            found = (
                f"measured with {_spoken(record.versions)}, while the evidence of {other.chip_class} is of "
                f"{_spoken(other.versions)}"
            )
            yield Objection(Verdict.NOT_MEASURED, found, "measure every class with one mlx and mlx-vlm")
            return


def _older(record: EvidenceFacts, other: EvidenceFacts) -> bool:
    """Whether this record is the one to measure again: the older of two that do not go together."""
    return (record.date or dt.date.min, record.source) < (other.date or dt.date.min, other.source)


def _spoken(versions: tuple[str, str | None] | None) -> str:
    mlx, mlx_vlm = versions or ("unknown", None)
    return f"mlx {mlx} and mlx-vlm {mlx_vlm}"


def _all_sound(record: EvidenceFacts, policy: GatePolicy) -> Iterator[Objection]:
    checked = {one.checkpoint: one for one in record.checked}
    required = policy.classes[record.chip_class].workloads if record.chip_class in policy.classes else ()
    named = [one.workload for one in record.workloads] or required
    for checkpoint in dict.fromkeys(workload.split("/")[0] for workload in named):
        if checkpoint not in checked:
            found = f"{checkpoint}: nothing tells whether the fusion is dispatched and right there"
            yield Objection(Verdict.NOT_MEASURED, found, _AGAIN.format(name=record.fusion))
    for one in record.checked:
        yield from sound(one, policy, name=record.fusion, off=record.off)


def sound(one: Checked, policy: GatePolicy, *, name: str, off: bool) -> Iterator[Objection]:
    """Object to what was checked on one checkpoint; ``off`` is a class where the fusion is not enabled."""
    for verdict, found, remedy in _off(one) if off else _on(one, policy, _AGAIN.format(name=name)):
        yield Objection(verdict, f"{one.checkpoint}: {found}", remedy)


def _off(one: Checked) -> Iterator[tuple[Verdict, str, str]]:
    mend = "leave the model alone where the fusion is not enabled"
    if one.failure is not None:
        yield Verdict.INVALID, one.failure, mend
    elif one.dispatch is None:
        yield Verdict.NOT_MEASURED, "its graph was not counted", "measure it again"
    elif one.dispatch.changed or one.dispatch.nodes[0] != one.dispatch.nodes[1]:
        changed = ", ".join(one.dispatch.changed) or "nodes"
        yield Verdict.INVALID, f"the fusion is off here, and yet the decode graph changes ({changed})", mend


def _on(one: Checked, policy: GatePolicy, again: str) -> Iterator[tuple[Verdict, str, str]]:
    if one.failure is not None:
        yield Verdict.INVALID, one.failure, f"mend the fusion, then {again}"
        return
    if one.dispatch is None:
        yield Verdict.NOT_MEASURED, "nothing tells whether the fusion was dispatched", again
    elif not one.dispatch.seen:
        said = "; ".join(one.dispatch.complaints) or "the decode graph is the unfused one's"
        remedy = "correct what it declares, or find out why it falls back"
        yield Verdict.INVALID, f"the fusion was not dispatched as declared: {said}", remedy
    if one.parity is None:
        yield Verdict.NOT_MEASURED, "parity is missing", again
    elif not one.parity.finite or _has_nan(one.parity.figures):
        yield Verdict.INVALID, "the fused model gives NaN or infinite logits", "mend the fusion"
    elif not one.parity.passed:
        found = f"the fused model's outputs are wrong: {one.parity.reason or 'parity failed'}"
        yield Verdict.INVALID, found, "mend the fusion: a fast wrong answer is no win"
    if one.weights_kept is False:
        yield Verdict.INVALID, "the fusion changes the unfused model's weights", "copy, then change"
    if one.memory_ratio is None:
        yield Verdict.NOT_MEASURED, "its memory was not measured", again
    elif not one.memory_ratio <= policy.memory:
        found = f"both models take {one.memory_ratio:.2f} times the memory of one, {policy.memory:g} at most"
        yield Verdict.INVALID, found, "share the weights instead of copying them"


def _has_nan(figures: Any) -> bool:
    if isinstance(figures, dict):
        return any(_has_nan(value) for value in figures.values())
    if isinstance(figures, (list, tuple)):
        return any(_has_nan(value) for value in figures)
    return isinstance(figures, float) and not math.isfinite(figures)
