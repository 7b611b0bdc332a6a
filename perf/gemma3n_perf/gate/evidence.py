"""Evidence as the gate reads it: what a record says, reduced from its blocks again, and why it does not count.

Before anything is judged: the file's place and digest, sources and commit, age and versions, dispatch, parity, memory.
No fusion is imported: whether one is on for a chip, its sources, the same by their digest, said when it was measured.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.first_tokens import peak_ratio
from gemma3n_perf.duel.judgements import LEAST_LAUNCHES, estimates, reservations
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.gate import in_use
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import Sources
from gemma3n_perf.gate.contradictions import contradictions
from gemma3n_perf.gate.facts import Checked, EvidenceFacts, Objection, WorkloadFacts
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.gate.record import Evidence, WorkloadEvidence
from gemma3n_perf.hardware.git import Repository, changed_files_text
from gemma3n_perf.stats.estimates import LaunchEstimate, estimate_launch, relative_change
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.admitted import FOLDER
from gemma3n_perf.store.baselines import differences
from gemma3n_perf.store.codec import not_finite

_SAME = 1e-6
_ARMS = ("mlx", "mlx_vlm", "backend", "python", "os", "packages", "commit", "driver")
_AGAIN = "measure it again: pytest perf/ --fusion {name}"


def facts_of(path: Path, sources: Sources, repository: Repository) -> EvidenceFacts:
    """Read a file and say what it holds and what speaks against it; a file that cannot be read is an objection."""
    try:
        record = store.read(path)
        facts = facts_of_record(record, str(path))
    except InvalidError as error:
        bad = Objection(Verdict.INVALID, error.found, error.remedy or error.expected or "measure it again")
        return EvidenceFacts(str(path), path.stem, folder_of(path) or "unknown class", objections=(bad,))
    return replace(facts, fusion=path.stem, objections=tuple(_objections(record, path, sources, repository)))


def facts_of_record(record: Evidence, source: str) -> EvidenceFacts:
    """Reduce a record to what the gate judges. Raises InvalidError where its blocks do not give what it states."""
    baseline = record.stacks["baseline"]
    return EvidenceFacts(
        source=source,
        fusion=record.fusion,
        chip_class=record.chip.chip_class,
        date=_date(record.date),
        off=not record.enabled,
        versions=(baseline.mlx, baseline.mlx_vlm),
        workloads=tuple(_workload(one, source) for one in record.workloads),
        checked=record.checked,
        attempts=record.attempts,
    )


def _workload(one: WorkloadEvidence, source: str) -> WorkloadFacts:
    """Reduce the blocks again. Raises InvalidError where they do not give the effect that the record states."""
    judged = one.judgement
    if judged.verdict in (Verdict.INVALID, Verdict.NOT_MEASURED):
        remedy = next((caution.remedy for caution in judged.cautions), "see what it says, then measure again")
        return WorkloadFacts(one.workload, (), one.budget_s, failure=Objection(judged.verdict, judged.reason, remedy))
    launches, stated = estimates(one.raw), judged.effect
    found = _effect(launches)
    if not _same(found, stated) and not _same(_effect(_formerly(one.raw)), stated):
        raise InvalidError(
            f"{source}: {one.workload}: an effect of {stated} is stated, and its blocks give {found}",
            expected="the effect that was measured",
            remedy=f"measure it again: pytest perf/ --fusion {Path(source).stem}",
        )
    against = reservations(launches, one.raw)
    if reason := against.contradiction:
        failure = Objection(Verdict.INVALID, reason, "look for what else the fusion does, then measure again")
        return WorkloadFacts(one.workload, (), one.budget_s, failure=failure)
    return WorkloadFacts(one.workload, launches, one.budget_s, one.spent, None, against.doubt, peak_ratio(one.raw))


def _formerly(raw: Sequence[Launch]) -> list[LaunchEstimate]:
    """Reduce blocks as records before 2026-11-27 did."""
    return [estimate_launch(*(one.tpot_s(arm) for arm in ARMS), seconds=one.seconds) for one in raw]


def _effect(launches: Sequence[LaunchEstimate]) -> float | None:
    """As the judge averages them."""
    return relative_change(float(np.mean([each.log_ratio for each in launches]))) if launches else None


def _same(found: float | None, stated: float | None) -> bool:
    return found is stated is None or (found is not None and stated is not None and abs(found - stated) <= _SAME)


def folder_of(path: Path) -> str | None:
    """Return the chip class in whose folder of evidence a file lies, or None where it lies in no such folder."""
    return path.parent.parent.name if path.parent.name == FOLDER else None


def _date(text: str) -> dt.date | None:
    try:
        return dt.datetime.fromisoformat(text).date()
    except ValueError:
        return None


def _objections(record: Evidence, path: Path, sources: Sources, repository: Repository) -> Iterator[Objection]:
    name, again, chip_class = record.fusion, _AGAIN.format(name=record.fusion), record.chip.chip_class
    if name != path.stem:
        yield Objection(Verdict.INVALID, f"{path} is the evidence of {name}", f"call it {name}.json")
        return
    if folder_of(path) not in (None, chip_class):
        found = f"{path} lies in the folder of {folder_of(path)} and is of {chip_class}"
        yield Objection(Verdict.INVALID, found, "move it to the folder of its class")
    try:
        digest, files = sources.digest(name), sources.files(name)
    except UsageError as error:
        yield Objection(Verdict.INVALID, f"{path}: {error.found}", "remove evidence of fusions that are gone")
        return
    if edited := record.sources != digest:
        found = "stale: the fusion's sources are no longer those that were measured"
        yield Objection(Verdict.NOT_MEASURED, found, again)
    yield from _of_this_commit(record, files, repository, again, stale="" if edited else "stale: ")
    for busy in dict.fromkeys(c for one in record.workloads for c in one.judgement.cautions if c.code == "busy"):
        yield Objection(Verdict.NOT_MEASURED, busy.found, busy.remedy)
    for one in record.workloads:
        runs = sum(launch.whole_s is not None for launch in one.raw)
        if one.raw and runs < LEAST_LAUNCHES and one.judgement.verdict is not Verdict.INVALID:
            found = f"{one.workload}: {runs} of its {len(one.raw)} launches have a whole run to bear its blocks out"
            yield Objection(Verdict.NOT_MEASURED, found, again)
    yield from _comparable(record)
    for said in contradictions(record):
        yield Objection(Verdict.INVALID, f"it contradicts itself: {said}", again)


def _of_this_commit(
    record: Evidence, files: tuple[Path, ...], repository: Repository, again: str, *, stale: str
) -> Iterator[Objection]:
    commit = record.commit
    if commit is None:
        yield Objection(Verdict.NOT_MEASURED, "measured at no known commit", "measure in a git checkout")
        return
    if record.dirty is not False:
        found = "measured with uncommitted changes, so it belongs to no commit"
        yield Objection(Verdict.NOT_MEASURED, found, f"commit, then {again}")
    if not repository.is_ancestor(commit):
        found = f"measured at {commit[:12]}, which is not part of this history"
        yield Objection(Verdict.NOT_MEASURED, found, f"{again}; a shallow clone knows no history (fetch-depth: 0)")
        return
    changed = repository.changed_since(commit, files)
    if changed:
        found = f"{stale}{changed_files_text(changed)} changed since {commit[:12]}, at which it was measured"
        yield Objection(Verdict.NOT_MEASURED, found, again)


def _comparable(record: Evidence) -> Iterator[Objection]:
    """Arms may differ in the fusion alone, and in the knobs that it is made of."""
    stacks, mend = record.stacks, "measure both arms in one environment"
    first, second = stacks["baseline"], stacks["candidate"]
    for name, both in differences(first, second, _ARMS):
        yield Objection(Verdict.INVALID, f"its arms differ in {name.replace('_', '-')}: {both}", mend)
    declared = {key: value for one in record.checked if one.dispatch for key, value in one.dispatch.knobs.items()}
    if strange := [key for key in declared if not key.startswith("MLX_")]:
        yield Objection(Verdict.INVALID, f"it sets {', '.join(strange)}, which is no knob of MLX", "leave it alone")
    if second.knobs != first.knobs | {key: value for key, value in declared.items() if key.startswith("MLX_")}:
        knobs = "; ".join(f"{arm} {dict(sorted(one.knobs.items())) or 'none'}" for arm, one in sorted(stacks.items()))
        yield Objection(Verdict.INVALID, f"its arms differ in knobs that it does not declare: {knobs}", mend)
    if record.commit is not None and first.commit != record.commit:
        found = f"its arms ran at {(first.commit or 'no commit')[:12]}, and it states {record.commit[:12]}"
        yield Objection(Verdict.INVALID, found, mend)


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
    ours = record.versions
    if ours is None:
        return
    for package, pinned, have in zip(("mlx", "mlx-vlm"), (policy.mlx, policy.mlx_vlm), ours, strict=True):
        if pinned is not None and have != pinned:
            found = f"measured with {package} {have}, and the policy asks for {pinned}"
            yield Objection(Verdict.NOT_MEASURED, found, f"measure with {package} {pinned}, or change the policy")
    for other in others:
        theirs = other.versions
        if theirs is None or theirs == ours or other.fusion != record.fusion or other.objections:
            continue
        # Of two that do not go together, the older is the one to measure again.
        if (record.date or dt.date.min, record.source) < (other.date or dt.date.min, other.source):
            found = (
                f"measured with mlx {ours[0]} and mlx-vlm {ours[1]}, while the evidence of {other.chip_class} is of "
                f"mlx {theirs[0]} and mlx-vlm {theirs[1]}"
            )
            yield Objection(Verdict.NOT_MEASURED, found, "measure every class with one mlx and mlx-vlm")
            return


def _all_sound(record: EvidenceFacts, policy: GatePolicy) -> Iterator[Objection]:
    checked = {one.checkpoint: one for one in record.checked}
    named = [one.workload for one in record.workloads] or policy.workloads(record.chip_class)
    for checkpoint in dict.fromkeys(workload.split("/")[0] for workload in named):
        if checkpoint not in checked:
            found = f"{checkpoint}: nothing tells whether the fusion is dispatched and right there"
            yield Objection(Verdict.NOT_MEASURED, found, _AGAIN.format(name=record.fusion))
    for one in record.checked:
        yield from sound(one, policy, name=record.fusion, off=record.off)
    for each in record.workloads:
        yield from _as_used(each, checked.get(each.workload.split("/")[0]), policy)


def _as_used(one: WorkloadFacts, checked: Checked | None, policy: GatePolicy) -> Iterator[Objection]:
    """Object to what was timed and is not what was checked, or what a user has."""
    effect = np.log1p(_effect(one.launches) or 0.0)
    if checked is not None and (found := in_use.less(checked.in_use_s, float(effect))):
        yield Objection(Verdict.INVALID, f"{one.workload}: {found}", "find out what it does where it is timed")
    if one.peak_ratio is not None and one.peak_ratio > policy.memory:
        found = f"{one.workload}: it takes {one.peak_ratio:.2f} times the baseline's memory, {policy.memory:g} at most"
        yield Objection(Verdict.INVALID, found, "share the weights instead of copying them")


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
        remedy = "correct what it declares, or find out where it falls back, or does more"
        yield Verdict.INVALID, f"the fusion was not dispatched as declared: {said}", remedy
        if one.parity is None:
            return  # nothing else was checked
    if one.parity is None:
        yield Verdict.NOT_MEASURED, "parity is missing", again
    elif not one.parity.finite or any(not_finite(one.parity.figures)):
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
