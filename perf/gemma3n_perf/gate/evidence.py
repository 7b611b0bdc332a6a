"""From an evidence file to the facts that the gate rules on, with every objection that the file and git bring up."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from gemma3n_perf.duel.judgements import estimates, whole_runs
from gemma3n_perf.errors import InvalidError, UsageError
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import Sources
from gemma3n_perf.gate.facts import EvidenceFacts, Objection, WorkloadFacts
from gemma3n_perf.gate.record import Evidence, WorkloadEvidence
from gemma3n_perf.hardware.git import Repository, changed_files_text
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.estimates import LaunchEstimate, relative_change
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.admitted import FOLDER

_SAME = 1e-9


def facts_of(path: Path, sources: Sources, repository: Repository) -> EvidenceFacts:
    """Read a file and say what it holds and what speaks against it; a file that cannot be read is an objection."""
    try:
        record = store.read(path)
        facts = facts_of_record(record, str(path))
    except InvalidError as error:
        bad = Objection(Verdict.INVALID, error.found, error.remedy or error.expected or "measure it again")
        return EvidenceFacts(str(path), path.stem, _class_of(path), objections=(bad,))
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
    )


def _workload(one: WorkloadEvidence, source: str) -> WorkloadFacts:
    """Reduce the blocks again. Raises InvalidError where they do not give the effect that the record states."""
    judged = one.judgement
    if judged.verdict in (Verdict.INVALID, Verdict.NOT_MEASURED):
        remedy = next((caution.remedy for caution in judged.cautions), "see what it says, then measure again")
        return WorkloadFacts(one.workload, (), one.budget_s, failure=Objection(judged.verdict, judged.reason, remedy))
    launches, stated = estimates(one.raw), judged.effect
    found = _effect(launches)
    if (found is None) != (stated is None) or (found is not None and abs(found - (stated or 0.0)) > _SAME):
        raise InvalidError(
            f"{source}: {one.workload}: an effect of {stated} is stated, and its blocks give {found}",
            expected="the effect that was measured",
            remedy="measure it again: pytest perf/ --fusion NAME",
        )
    runs = whole_runs(launches, one.raw)
    if runs is not None and runs.contradict:
        against = Objection(Verdict.INVALID, runs.text, "look for what makes blocks alone faster, then measure again")
        return WorkloadFacts(one.workload, (), one.budget_s, failure=against)
    return WorkloadFacts(one.workload, launches, one.budget_s, one.spent)


def _class_of(path: Path) -> str:
    return path.parent.parent.name if path.parent.name == FOLDER else "unknown class"


def _date(text: str) -> dt.date | None:
    try:
        return dt.datetime.fromisoformat(text).date()
    except ValueError:
        return None


def _objections(record: Evidence, path: Path, sources: Sources, repository: Repository) -> Iterator[Objection]:
    again = f"measure it again: pytest perf/ --fusion {record.fusion}"
    name, chip_class = record.fusion, record.chip.chip_class
    if name != path.stem:
        yield Objection(Verdict.INVALID, f"{path} is the evidence of {name}", f"call it {name}.json")
        return
    if path.parent.name == FOLDER and path.parent.parent.name != chip_class:
        found = f"{path} lies in the folder of {path.parent.parent.name} and is of {chip_class}"
        yield Objection(Verdict.INVALID, found, "move it to the folder of its class")
    try:
        digest, files, enabled = sources.digest(name), sources.files(name), sources.enabled(name, record.chip)
    except UsageError as error:
        yield Objection(Verdict.INVALID, f"{path}: {error.found}", "remove evidence of fusions that are gone")
        return
    if record.sources != digest:
        found = "stale: the fusion's sources are no longer those that were measured"
        yield Objection(Verdict.NOT_MEASURED, found, again)
    if record.enabled != enabled:
        found = f"measured with the fusion {_on(record.enabled)}, and now it is {_on(enabled)} on this class"
        yield Objection(Verdict.NOT_MEASURED, found, again)
    yield from _of_this_commit(record, files, repository, again)
    yield from _comparable(record)


def _on(enabled: bool) -> str:
    return "on" if enabled else "off"


def _of_this_commit(
    record: Evidence, files: tuple[Path, ...], repository: Repository, again: str
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
        found = f"stale: {changed_files_text(changed)} changed since {commit[:12]}, at which it was measured"
        yield Objection(Verdict.NOT_MEASURED, found, again)


def _comparable(record: Evidence) -> Iterator[Objection]:
    """Arms may differ in the fusion alone, and in the knobs that it is made of."""
    first, second = record.stacks["baseline"], record.stacks["candidate"]
    mend = "measure both arms in one environment"
    for name in ("mlx", "mlx_vlm", "backend", "python", "os", "packages", "commit", "driver"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours != theirs:
            found = f"its arms differ in {name.replace('_', '-')}: {_brief(ours, theirs)}, {_brief(theirs, ours)}"
            yield Objection(Verdict.INVALID, found, mend)
    declared = {key: value for one in record.checked if one.dispatch for key, value in one.dispatch.knobs.items()}
    if second.knobs != first.knobs | {key: value for key, value in declared.items() if key.startswith("MLX_")}:
        yield Objection(Verdict.INVALID, f"its arms differ in knobs that it does not declare: {_knobs(record)}", mend)
    if record.commit is not None and first.commit != record.commit:
        found = f"its arms ran at {(first.commit or 'no commit')[:12]}, and it states {record.commit[:12]}"
        yield Objection(Verdict.INVALID, found, mend)


def _brief(value: object, other: object) -> str:
    if isinstance(value, dict) and isinstance(other, dict):
        shown = {name: text for name, text in value.items() if other.get(name) != text}
        return " ".join(f"{name}={text}" for name, text in sorted(shown.items())) or "none"
    return str(value)


def _knobs(record: Evidence) -> str:
    arms: dict[str, Stack] = record.stacks
    return "; ".join(f"{arm} {dict(sorted(one.knobs.items())) or 'none'}" for arm, one in sorted(arms.items()))


def _effect(launches: tuple[LaunchEstimate, ...]) -> float | None:
    """The effect that launches give together, as the judge averages them; None without any."""
    return relative_change(float(np.mean([one.log_ratio for one in launches]))) if launches else None
