"""The gate's errands: whose evidence is to be read, what it says of itself, and who may be admitted.

The adapter behind ``gemma3n-perf gate``, once a change touches a fusion. It gathers facts and objections; what they
amount to is for ``verdict.gate``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.change import Checkout, Touched
from gemma3n_perf.gate.evidence import Sources, facts_of
from gemma3n_perf.gate.facts import Decision, EvidenceFacts, Objection, Ruling
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.gate.rule import PLUS, best, parts, rule
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store import admitted as admitted_store
from gemma3n_perf.store import noise as noise_store
from gemma3n_perf.store.admitted import ADMITTED, FOLDER


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What the gate was asked: evidence files and folders, and the commit that a change starts from."""

    evidence: tuple[Path, ...] = ()
    base: str | None = None


@dataclass(frozen=True, slots=True)
class AdmissionResult:
    """What the gate found; ``ruling`` is None where the change touches no fusion. ``shown`` is the ruling on the
    evidence alone, whatever is in use.
    """

    ruling: Ruling | None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)
    shown: Ruling | None = None

    @property
    def exit_code(self) -> int:
        """0 admitted or nothing to gate; else that of the most severe refusal."""
        return 0 if self.ruling is None else self.ruling.exit_code


def gate(asked: AdmissionRequest, here: Checkout, policy: GatePolicy, touched: Touched) -> AdmissionResult:
    """Read the evidence of what a change touches and rule on it.

    Raises UsageError for paths that cannot be used, MalformedRecordError for a bad noise floor.
    """
    notes = list(touched.notes)
    sources = here.sources()
    known = sources.names()
    files = evidence_files(asked.evidence or (here.baselines,), may_be_absent=asked.evidence == ())
    in_use = admitted_store.read_all(here.baselines)
    if asked.base is None:
        names = [path.stem for path in files]
    else:
        names = [name for name in known if set(touched.sources) & set(_relative(sources, name, here))]
        there = {path.stem for path in files}
        names += [name for name in touched.names if name in there or set(parts(name)) <= set(known)]
        for composition in in_use.values():
            if not set(parts(composition)) <= set(known) or set(parts(composition)) & set(names):
                names.append(composition)
        notes += [f"{path} is no longer there: its evidence can go too" for path in touched.removed]
    names = list(dict.fromkeys(part for name in names for part in (*parts(name), name)))
    if not names:
        return _without_names(asked, tuple(notes))
    facts = _distinct([(path, facts_of(path, sources, here.repository)) for path in files if path.stem in names])
    shown = rule(names, facts, policy, today=here.today, noise=_noise(facts, here.baselines))
    return AdmissionResult(_with_what_is_in_use(shown, in_use, known), tuple(names), tuple(notes), shown)


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


def admit(answer: AdmissionResult, baselines: Path) -> tuple[str, ...]:
    """Write the best admitted composition of every class it was judged on; returns what was done, in words.

    A composition that is admitted already and was not part of this answer stays: only a comparison may replace it. One
    that was judged, and is invalid, loses, or was not shown to win on its class, is withdrawn.
    """
    done = []
    ruling = answer.shown
    classes = dict.fromkeys(name for one in ruling.decisions for name in one.wins) if ruling else {}
    shown = {one.fusion: one for one in ruling.decisions} if ruling else {}
    refused = {one.fusion: one for one in answer.ruling.decisions if one.reasons} if answer.ruling else {}
    for chip_class, composition in admitted_store.read_all(baselines).items():
        if composition not in shown or chip_class in shown[composition].wins:
            continue
        why = {one.verdict for one in refused[composition].reasons} if composition in refused else set()
        if shown[composition].admitted or why & {Verdict.LOSS, Verdict.INVALID}:
            admitted_store.write(baselines, chip_class, ())
            done.append(f"{chip_class}: {composition} is withdrawn: it was refused, or not shown to win there")
        elif chip_class not in classes:
            done.append(f"{chip_class}: {composition} stays in use, though it was refused: see why above")
    for chip_class in classes:
        assert ruling is not None
        winner = best(ruling, chip_class)
        if winner is None:
            continue
        before = admitted_store.read(baselines, chip_class)
        if before and PLUS.join(before) != winner and PLUS.join(before) not in answer.names:
            done.append(f"{chip_class}: {PLUS.join(before)} stays: its evidence was not part of this run")
            continue
        path = admitted_store.write(baselines, chip_class, parts(winner))
        done.append(f"{chip_class}: {winner} is admitted, in {path.relative_to(baselines.parent)}")
    return tuple(done)


def _relative(sources: Sources, name: str, here: Checkout) -> list[str]:
    root = here.repository.root.resolve()
    files = [path.resolve() for path in sources.files(name)]
    return [str(path.relative_to(root)) for path in files if path.is_relative_to(root)]


def _without_names(asked: AdmissionRequest, notes: tuple[str, ...]) -> AdmissionResult:
    if asked.base is not None:
        return AdmissionResult(None, notes=notes)
    raise UsageError(
        "no evidence was found, and no --base says which fusions are to be judged",
        expected="evidence files, folders that hold them, or --base REF",
        remedy="measure some: pytest perf/ --fusion NAME",
    )


def evidence_files(paths: Sequence[Path], *, may_be_absent: bool = True) -> list[Path]:
    """Return the evidence files among ``paths`` and below folders of them. Raises UsageError for what is neither."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*.json") if p.parent.name == FOLDER)
            found += inside or ([] if may_be_absent else sorted(path.glob("*.json")))
        elif path.is_file():
            found.append(path)
        elif not may_be_absent:
            raise UsageError(f"{path} is neither a file nor a folder", expected="evidence files, or folders of them")
    return [path for path in dict.fromkeys(found) if path.name != ADMITTED]


def _distinct(read: Sequence[tuple[Path, EvidenceFacts]]) -> list[EvidenceFacts]:
    """One record twice, byte for byte, is one record."""
    seen: dict[tuple[str, str, bytes], EvidenceFacts] = {}
    for path, facts in read:
        try:
            data = path.read_bytes()
        except OSError:
            data = str(path).encode()
        folder = path.parent.parent.name if path.parent.name == FOLDER else facts.chip_class
        misplaced = folder if folder != facts.chip_class else ""
        seen.setdefault((facts.chip_class, misplaced, data), facts)
    return list(seen.values())


def _noise(facts: Sequence[EvidenceFacts], baselines: Path) -> Mapping[str, NoiseFloor]:
    found = {one.chip_class: noise_store.read(baselines, one.chip_class) for one in facts}
    return {name: record.floor for name, record in found.items() if record is not None}
