"""Admission: whose evidence is read, what it says, and which composition is in use on a class.

Behind ``gemma3n-perf gate`` and the last job of a pull request, once a change touches a fusion; and behind pages, which
judge all that is committed by what it holds alone. What facts and objections amount to is for ``gate.rule``.
"""

import datetime as dt
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate import record as evidence_store
from gemma3n_perf.gate.change import Checkout, Touched, parts, touched_names, with_parts
from gemma3n_perf.gate.evidence import facts_of, facts_of_record, folder_of
from gemma3n_perf.gate.facts import Decision, EvidenceFacts, Objection, Ruling
from gemma3n_perf.gate.policy import POLICY_FILE, GatePolicy, read_policy
from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.rule import best, goals, rule
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import admitted as admitted_store
from gemma3n_perf.store import noise as noise_store
from gemma3n_perf.store.admitted import ADMITTED, FOLDER
from gemma3n_perf.store.codec import usable
from gemma3n_perf.store.files import contents


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """What the gate found; ``ruling`` is empty where the change touches no fusion.

    ``names`` were judged, by the evidence in ``facts``. ``shown`` is the ruling on the evidence alone, whatever is in
    use. ``notes`` are worth reading and decide nothing.
    """

    ruling: Ruling = field(default_factory=Ruling)
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shown: Ruling = field(default_factory=Ruling)
    facts: tuple[EvidenceFacts, ...] = ()


def gate(
    here: Checkout, policy: GatePolicy, change: Touched | None = None, evidence: Sequence[Path] = ()
) -> AdmissionResult:
    """Rule on the fusions that a change touches; without a ``change``, on all that have evidence.

    ``evidence`` are files, and folders of them; by default all of the baselines. Raises UsageError for paths that
    cannot be used, MalformedRecordError for a bad noise floor or admission.
    """
    sources = here.sources()
    files = evidence_files(evidence or (here.baselines,), may_be_absent=not evidence)
    notes: tuple[str, ...] = ()
    if change is not None:
        names = touched_names(change, here, sources, {path.stem for path in files})
        notes = (*change.notes, *(f"{path} is no longer there: its evidence can go too" for path in change.removed))
        if not names:
            return AdmissionResult(notes=notes)
    elif not files:
        raise UsageError(
            "no evidence was found, and no --base says which fusions are to be judged",
            expected="evidence files, folders that hold them, or --base REF",
            remedy="measure some: pytest perf/ --fusion all",
        )
    else:
        names = with_parts(path.stem for path in files)
    facts = _distinct([(path, facts_of(path, sources, here.repository)) for path in files if path.stem in names])
    noise = _floors(noise_store.read(here.baselines, name) for name in {one.chip_class for one in facts})
    shown = rule(names, facts, policy, today=here.today, noise=noise)
    if change is not None and change.judges:
        shown = _by_its_own_judges(shown, change.judges)
    ruling = _with_what_is_in_use(shown, admitted_store.read_all(here.baselines), sources.names())
    if silent := [name for name in policy.awaiting if name not in {one.chip_class for one in facts}]:
        notes = (*notes, f"no machine yet, and not waited for: {', '.join(silent)}")
    # A change is judged by its own fusions, and the largest win may be another's.
    aims = () if change is not None else (aim for name in policy.classes for aim in goals(shown, policy, name))
    attempts = (
        f"{one.fusion} on {one.chip_class}: attempt {one.attempts} of these sources; others are in fusions/earlier/"
        for one in facts
        if one.attempts > 1
    )
    return AdmissionResult(ruling, names, (*notes, *aims, *attempts), shown, tuple(facts))


def _by_its_own_judges(shown: Ruling, judges: Sequence[str]) -> Ruling:
    """Evidence was checked on machines that ran the change: by judges which the change had edited, it is none."""
    found = f"this change also edits what judges fusions ({', '.join(Path(path).name for path in judges)})"
    against = Objection(Verdict.INVALID, f"{found}, so its evidence was judged by itself", "land that edit first")
    decisions = [replace(one, admitted=False, reasons=(against, *one.reasons), wins={}) for one in shown.decisions]
    return replace(shown, decisions=tuple(decisions))


def _with_what_is_in_use(ruling: Ruling, in_use: Mapping[str, str], known: Sequence[str]) -> Ruling:
    """What is judged may not be in use on a class where it was not shown to win, nor name what does not exist."""
    remedy = "gemma3n-perf gate --admit writes what may be in use"

    def reasons(one: Decision) -> Iterator[Objection]:
        where = [name for name, used in in_use.items() if used == one.fusion]
        for part in (part for part in parts(one.fusion) if part not in known and where):
            found = f"{one.fusion} is in use on {', '.join(where)}, and there is no fusion {part}"
            yield Objection(Verdict.INVALID, found, remedy)
        for name in where if one.admitted else ():
            if name not in one.wins:
                found = f"{one.fusion} is in use on {name}, by its {ADMITTED}, and was not shown to win there"
                yield Objection(Verdict.NOT_MEASURED, found, f"{remedy}; or measure it there")

    decisions = []
    for one in ruling.decisions:
        against = tuple(reasons(one))
        kept = replace(one, admitted=False, reasons=(*one.reasons, *against), wins={})
        decisions.append(kept if against else one)
    return replace(ruling, decisions=tuple(decisions))


def admit(result: AdmissionResult, baselines: Path) -> tuple[str, ...]:
    """Write the best admitted composition of every class it was judged on; returns what was done, as messages.

    A composition that is admitted already and was not judged here stays: only a comparison may replace it. One that
    was judged, and is invalid, loses, or was not shown to win on its class, is withdrawn.
    """
    done = []
    classes = dict.fromkeys(name for one in result.shown.decisions for name in one.wins)
    shown = {one.fusion: one for one in result.shown.decisions}
    refused = {one.fusion: {reason.verdict for reason in one.reasons} for one in result.ruling.decisions}
    in_use = admitted_store.read_all(baselines)
    for chip_class, composition in in_use.items():
        if composition not in shown or chip_class in shown[composition].wins:
            continue
        if shown[composition].admitted or refused[composition] & {Verdict.LOSS, Verdict.INVALID}:
            admitted_store.write(baselines, chip_class, ())
            done.append(f"{chip_class}: {composition} is withdrawn: it was refused, or not shown to win there")
        elif chip_class not in classes:
            done.append(f"{chip_class}: {composition} stays in use, though it was refused: see why above")
    for chip_class in classes:
        winner, before = best(result.shown, chip_class), in_use.get(chip_class, "")
        if winner is None:
            continue
        if before not in ("", winner, *result.names):
            done.append(f"{chip_class}: {before} stays: its evidence was not part of this run")
            continue
        source = next(one.source for one in result.facts if (one.fusion, one.chip_class) == (winner, chip_class))
        grounds = evidence_store.grounds(evidence_store.read(Path(source)))
        path = admitted_store.write(baselines, chip_class, parts(winner), grounds=grounds)
        done.append(f"{chip_class}: {winner} is admitted, in {path.relative_to(baselines.parent)}")
    return tuple(done)


def evidence_files(paths: Sequence[Path], *, may_be_absent: bool = True) -> list[Path]:
    """Return the evidence files among ``paths`` and below folders of them. Raises UsageError for what is neither."""
    found: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                inside = sorted(p for p in path.rglob("*.json") if p.parent.name == FOLDER)
                found += inside or ([] if may_be_absent else sorted(path.glob("*.json")))
            elif path.is_file():
                found.append(path)
            elif not may_be_absent:
                raise UsageError(
                    f"{path} is neither a file nor a folder", expected="evidence files, or folders of them"
                )
        except OSError as error:
            raise UsageError(f"{str(path)[:80]}: {error.strerror}", expected="files, or folders of them") from error
    for path in found:
        name = os.fsencode(path).decode(errors="replace")
        if name != str(path):
            raise UsageError(f"{name} is not named in UTF-8", expected="names as the suite gives them")
    return [path for path in dict.fromkeys(found) if path.name != ADMITTED]


def _distinct(read: Sequence[tuple[Path, EvidenceFacts]]) -> list[EvidenceFacts]:
    """One record twice, byte for byte, is one record."""
    seen: dict[tuple[str, str, bytes], EvidenceFacts] = {}
    for path, facts in read:
        try:
            data = contents(path)
        except OSError:
            data = str(path).encode()
        seen.setdefault((facts.chip_class, folder_of(path) or facts.chip_class, data), facts)
    return list(seen.values())


def _floors(records: Iterable[noise_store.NoiseRecord | None]) -> dict[str, NoiseFloor]:
    return {one.chip.chip_class: one.floor for one in records if one is not None}


@dataclass(frozen=True, slots=True)
class Recorded:
    """Evidence by its file, the ``ruling`` on all of it, and by chip class what is admitted, the noise floor and
    what is aimed at, as sentences.
    """

    evidence: Mapping[Path, Evidence]
    ruling: Ruling
    admitted: Mapping[str, tuple[str, ...]]
    noise: Mapping[str, NoiseFloor]
    goals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def recorded(baselines: Path, faults: list[str] | None = None) -> Recorded:
    """Read all evidence below ``baselines`` and rule on it, as of the day of the latest, by the policy that lies there.

    What cannot be used is left out, and ``faults`` says why; without those, it is raised: InvalidError,
    MalformedRecordError, NotComparableError naming the file, UsageError for the policy.
    """
    policy = usable(partial(read_policy, baselines / POLICY_FILE), faults)
    sound: dict[Path, Evidence] = {}
    facts: list[EvidenceFacts] = []
    for path in evidence_files((baselines,)):
        record = usable(partial(evidence_store.read, path), faults)
        fact = usable(partial(facts_of_record, record, str(path)), faults) if record else None
        if record and fact:
            sound[path] = record
            facts.append(fact)
    classes = dict.fromkeys(one.chip_class for one in facts)
    noise = _floors(usable(partial(noise_store.read, baselines, name), faults) for name in classes)
    admitted = {name: usable(partial(admitted_store.read, baselines, name), faults) or () for name in classes}
    if policy is None:
        return Recorded(sound, Ruling(), admitted, noise)
    names = with_parts(one.fusion for one in facts)
    today = max((one.date for one in facts if one.date is not None), default=dt.date.min)
    ruling = rule(names, facts, policy, today=today, noise=noise)
    return Recorded(sound, ruling, admitted, noise, {name: tuple(goals(ruling, policy, name)) for name in classes})
