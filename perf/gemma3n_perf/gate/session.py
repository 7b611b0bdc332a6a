"""A session of evidence: is a fusion right, is it dispatched, does it fit, and is it faster? In this order.

Opinion: what is wrong is not timed. A fusion that gives NaN, falls back or copies the weights gets a record that says
so, and the duels go to the others, all through the same launches.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.errors import InvalidError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.gate.evidence import Sources, facts_of_record
from gemma3n_perf.gate.facts import Cell, Checked, Objection, Parity
from gemma3n_perf.gate.objections import sound
from gemma3n_perf.gate.policy import ClassPolicy, GatePolicy
from gemma3n_perf.gate.record import SCHEMA, Evidence, WorkloadEvidence
from gemma3n_perf.gate.rule import rule
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Judgement, Verdict

WORST_FIRST = (
    Verdict.INVALID,
    Verdict.LOSS,
    Verdict.NOT_MEASURED,
    Verdict.INCONCLUSIVE,
    Verdict.NO_CHANGE,
    Verdict.WIN,
)
"""Which workload's verdict is the record's."""


@dataclass(frozen=True, slots=True)
class FusionDuel:
    """What one fusion's duel over one workload measured: judged over all sessions and for each, and every launch.

    ``stacks`` are by arm, empty where the duel broke off before they were known. ``notes`` are worth keeping.
    """

    judgement: Judgement
    per_session: tuple[Judgement, ...]
    raw: tuple[Launch, ...]
    spent: bool = False
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


DIFFERENT_TOKENS = "different greedy tokens"
"""What a duel's note of them says, see ``measure.agreement``."""

Duels = Mapping[tuple[str, str], FusionDuel]
"""By fusion and workload."""

Keep = Callable[[Duels], None]
"""Takes everything so far, after every launch."""

Measure = Callable[[Sequence[str], Sequence[str], int, float, Keep], Duels]
"""From fusions, workloads, sessions and seconds of measuring for each workload to their duels."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """A check that is asked for: of a ``fusion``, which is on here or not, on a ``workload``'s checkpoint."""

    fusion: str
    enabled: bool
    workload: str


Check = Callable[[Sequence[CheckSpec]], Sequence[Checked]]
"""Finds what needs no timing, in the order asked for."""


@dataclass(frozen=True, slots=True)
class EvidenceSpec:
    """What a session is to gather: evidence for ``names`` on ``workloads``, with ``budget_s`` seconds for each duel."""

    names: tuple[str, ...]
    workloads: tuple[str, ...]
    budget_s: float
    sessions: int = 2
    policy: GatePolicy | None = None


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a session needs of the world. ``keep`` takes each record as far as it has come, after every launch: one that
    is cut off loses nothing, and the gate tells what is missing.
    """

    chip: Chip
    stack: Stack
    sources: Sources
    check: Check
    measure: Measure
    now: Callable[[], dt.datetime]
    note: Callable[[str], None] = lambda text: None
    keep: Callable[[Evidence], object] = lambda record: None


def gather(asked: EvidenceSpec, dependencies: Dependencies) -> tuple[Evidence, ...]:
    """Check every fusion, duel those that are sound, and return a record for each, in the order asked for.

    Raises UsageError for names that are unknown or repeat, and what measuring raises.
    """
    if not asked.names or len(set(asked.names)) != len(asked.names):
        raise UsageError(f"fusions {', '.join(asked.names) or 'none'}", expected="each fusion once")
    policy = asked.policy or _policy(asked, dependencies)
    drafts = _drafts(asked, dependencies)
    fit = [one.fusion for one in drafts if one.enabled and not _against(one, policy)]

    def concluded(duels: Duels) -> tuple[Evidence, ...]:
        return tuple(_concluded(_measured(one, asked, duels), policy, dependencies) for one in drafts)

    def keep(duels: Duels) -> None:
        for record in concluded(duels):
            dependencies.keep(record)

    if not fit:
        return concluded({})
    dependencies.note(f"duels of {', '.join(fit)}")
    return concluded(dependencies.measure(fit, asked.workloads, asked.sessions, asked.budget_s, keep))


def refusal(record: Evidence) -> PerfError | None:
    """What a session ends with for a record: an error for invalid, loss and not-measured, None for the rest."""
    found = f"{record.fusion} on {record.chip.chip_class}: {record.verdict}: {record.reason}"
    match Verdict(record.verdict):
        case Verdict.INVALID:
            return InvalidError(found, remedy="the record is kept; mend the fusion and measure again")
        case Verdict.LOSS:
            return PerfError(found, remedy="switch the fusion off on this class; its record is kept as a documented no")
        case Verdict.NOT_MEASURED if record.enabled:
            return NotMeasuredError(found, remedy="see what it says, then measure again")
        case _:
            return None


def _policy(asked: EvidenceSpec, dependencies: Dependencies) -> GatePolicy:
    name = dependencies.chip.chip_class
    return GatePolicy(required=(name,), classes={name: ClassPolicy(asked.workloads)}, sessions=max(2, asked.sessions))


def _drafts(asked: EvidenceSpec, dependencies: Dependencies) -> list[Evidence]:
    firsts = {workload.split("/")[0]: workload for workload in reversed(asked.workloads)}
    wanted = [
        CheckSpec(name, dependencies.sources.enabled(name, dependencies.chip), firsts[checkpoint])
        for name in asked.names
        for checkpoint in reversed(firsts)
    ]
    found = list(zip(wanted, dependencies.check(wanted), strict=True))
    return [_draft(name, [one for one in found if one[0].fusion == name], dependencies) for name in asked.names]


def _draft(name: str, found: Sequence[tuple[CheckSpec, Checked]], dependencies: Dependencies) -> Evidence:
    return Evidence(
        schema=SCHEMA,
        fusion=name,
        verdict=Verdict.NOT_MEASURED.value,
        reason="",
        enabled=found[0][0].enabled,
        sources=dependencies.sources.digest(name),
        commit=dependencies.stack.commit,
        dirty=dependencies.stack.dirty,
        date=dependencies.now().isoformat(timespec="seconds"),
        chip=dependencies.chip,
        stacks={"baseline": dependencies.stack, "candidate": dependencies.stack},
        checked=tuple(checked for _, checked in found),
    )


def _measured(draft: Evidence, asked: EvidenceSpec, duels: Duels) -> Evidence:
    own = {workload: duels[draft.fusion, workload] for workload in asked.workloads if (draft.fusion, workload) in duels}
    notes = tuple(dict.fromkeys(note for one in own.values() for note in one.notes))
    stacks = next((dict(one.stacks) for one in own.values() if one.stacks), draft.stacks)
    return replace(
        draft,
        stacks=stacks,
        checked=tuple(_of_tokens(one, notes) for one in draft.checked),
        workloads=tuple(
            WorkloadEvidence(name, one.judgement, one.per_session, asked.budget_s, one.raw, one.spent)
            for name, one in own.items()
        ),
        notes=notes,
    )


def _of_tokens(checked: Checked, notes: Sequence[str]) -> Checked:
    """A knob has its processes compared and no models: it must leave every token as it is."""
    differs = next((note for note in notes if DIFFERENT_TOKENS in note), None)
    if differs is None or checked.dispatch is None or not checked.dispatch.same:
        return checked
    return replace(checked, parity=Parity(False, True, differs))


def _concluded(record: Evidence, policy: GatePolicy, dependencies: Dependencies) -> Evidence:
    """Say what this class alone amounts to, by the gate's own rules."""
    if not record.enabled and not _against(record, policy):
        return replace(record, reason="off on this class, and the decode graph is unchanged there")
    facts = facts_of_record(record, f"{record.fusion}.json")
    ruling = rule([record.fusion], [facts], policy, today=dependencies.now().date())
    cells = [cell for cell in ruling.cells if cell.chip_class == record.chip.chip_class]
    worst = min(cells, key=_rank)
    return replace(record, verdict=(worst.verdict or Verdict.NOT_MEASURED).value, reason=worst.reason)


def _against(record: Evidence, policy: GatePolicy) -> list[Objection]:
    off = not record.enabled
    return [found for one in record.checked for found in sound(one, policy, name=record.fusion, off=off)]


def _rank(cell: Cell) -> int:
    return WORST_FIRST.index(cell.verdict or Verdict.WIN)


def expand(names: Iterable[str], sources: Sources) -> tuple[str, ...]:
    """Return the fusions that ``--fusion`` asks for: ``all`` is every one, each once. Raises UsageError."""
    found: list[str] = []
    for name in names:
        found += sources.names() if name == "all" else [name]
    for name in dict.fromkeys(found):
        sources.files(name)
    return tuple(dict.fromkeys(found))
