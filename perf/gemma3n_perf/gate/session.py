"""A session of evidence: is a fusion right, is it dispatched, does it fit, and is it faster? In this order.

What is wrong is not timed. A fusion that gives NaN, falls back or copies the weights gets a record that says so, and
the duels go to the others, all through the same launches.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gemma3n_perf.errors import (
    InconclusiveError,
    InvalidError,
    NotMeasuredError,
    PerfError,
    RegressionError,
    UsageError,
)
from gemma3n_perf.gate.change import Sources
from gemma3n_perf.gate.evidence import facts_of_record, sound
from gemma3n_perf.gate.facts import Checked, Objection, Parity
from gemma3n_perf.gate.policy import ClassPolicy, GatePolicy
from gemma3n_perf.gate.record import SCHEMA, Evidence, WorkloadEvidence
from gemma3n_perf.gate.rule import rule
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Caution, Verdict

WORST_FIRST = (
    Verdict.INVALID,
    Verdict.LOSS,
    Verdict.NOT_MEASURED,
    Verdict.INCONCLUSIVE,
    Verdict.NO_CHANGE,
    Verdict.WIN,
)
"""Which workload's verdict is the record's."""
_EDITED = "its sources were edited while it was measured"


@dataclass(frozen=True, slots=True)
class FusionDuel:
    """What one fusion's duel over one workload ``measured``, over all sessions and for each.

    ``stacks`` are by arm, empty where the duel broke off before they were known.
    """

    measured: WorkloadEvidence
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    cautions: tuple[Caution, ...] = ()


Duels = Mapping[tuple[str, str], FusionDuel]
"""By fusion and workload."""

Keep = Callable[[Duels], None]
"""Takes everything so far, after every launch."""

Measure = Callable[[Sequence[str], Sequence[str], int, float, Keep], Duels]
"""From fusions, workloads, sessions and seconds of measuring for each workload to their duels."""


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """A check to carry out: of a ``fusion``, which is ``enabled`` here or not, on a ``workload``'s checkpoint."""

    fusion: str
    enabled: bool
    workload: str

    @property
    def checkpoint(self) -> str:
        """The checkpoint's name."""
        return self.workload.partition("/")[0]


Check = Callable[[Sequence[CheckSpec]], Sequence[Checked]]
"""Finds what needs no timing, in the order of the specs."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What a session needs of the world.

    ``keep`` takes each record as far as it has come, after every launch: a session that is cut off loses nothing, and
    the gate tells what is missing. ``noise`` is the class's calibration, by which the gate will judge.
    """

    chip: Chip
    stack: Stack
    sources: Sources
    check: Check
    measure: Measure
    now: Callable[[], dt.datetime]
    note: Callable[[str], None] = lambda text: None
    keep: Callable[[Evidence], object] = lambda record: None
    noise: NoiseFloor | None = None


def gather(
    names: Sequence[str],
    workloads: tuple[str, ...],
    using: Dependencies,
    *,
    budget_s: float,
    sessions: int = 2,
    policy: GatePolicy | None = None,
) -> tuple[Evidence, ...]:
    """Check every fusion, duel those that are sound, and return a record for each, in the order of ``names``.

    Each duel, of one workload, has ``budget_s`` seconds. Raises UsageError for names that are unknown or repeat, and
    what measuring raises.
    """
    if not names or len(set(names)) != len(names):
        raise UsageError(f"fusions {', '.join(names) or 'none'}", expected="each fusion once")
    chip_class = using.chip.chip_class
    rules = policy or GatePolicy((chip_class,), {chip_class: ClassPolicy(workloads)}, sessions=max(2, sessions))
    drafts = _drafts(names, workloads, using)
    fit = [one.fusion for one in drafts if one.enabled and not _against(one, rules)]

    edited: set[str] = set()

    def concluded(duels: Duels) -> tuple[Evidence, ...]:
        edited.update(one.fusion for one in drafts if _digest(using.sources, one.fusion) != one.sources)
        found = [_concluded(_measured(one, workloads, duels), rules, using) for one in drafts]
        return tuple(
            replace(one, dirty=True, notes=(*one.notes, _EDITED)) if one.fusion in edited else one for one in found
        )

    def keep(duels: Duels) -> None:
        for record in concluded(duels):
            using.keep(record)

    if not fit:
        return concluded({})
    using.note(f"duels of {', '.join(fit)}")
    return concluded(using.measure(fit, workloads, sessions, budget_s, keep))


def _digest(sources: Sources, name: str) -> str | None:
    try:
        return sources.digest(name)
    except (UsageError, OSError):  # removed meanwhile
        return None


def refusal(record: Evidence) -> PerfError | None:
    """What a session ends with for a record: an error for every verdict but win and no-change."""
    found = f"{record.fusion} on {record.chip.chip_class}: {record.verdict}: {record.reason}"
    match Verdict(record.verdict):
        case Verdict.INVALID:
            return InvalidError(found, remedy="the record is kept; mend the fusion and measure again")
        case Verdict.LOSS:
            return RegressionError(
                found, remedy="switch the fusion off on this class; its record is kept as a documented no"
            )
        case Verdict.NOT_MEASURED if record.enabled:
            return NotMeasuredError(found, remedy="see what it says, then measure again")
        case Verdict.INCONCLUSIVE:
            longer = 2 * sum(one.budget_s for one in record.workloads)
            return InconclusiveError(found, remedy=f"measure longer: --budget {longer:.0f}; the record is kept")
        case _:
            return None


def _drafts(names: Sequence[str], workloads: Sequence[str], using: Dependencies) -> list[Evidence]:
    """Check every fusion on the first workload of each checkpoint; returns records without duels."""
    firsts: dict[str, str] = {}
    for workload in workloads:
        firsts.setdefault(workload.partition("/")[0], workload)
    enabled, broken = states(names, using.sources, using.chip)
    checks = [CheckSpec(name, enabled[name], one) for name in names if name not in broken for one in firsts.values()]
    found = list(zip(checks, using.check(checks) if checks else (), strict=True))
    return [
        Evidence(
            schema=SCHEMA,
            fusion=name,
            verdict=Verdict.NOT_MEASURED.value,
            reason="",
            enabled=enabled[name],
            sources=using.sources.digest(name),
            commit=using.stack.commit,
            dirty=using.stack.dirty,
            date=using.now().isoformat(timespec="seconds"),
            chip=using.chip,
            stacks={"baseline": using.stack, "candidate": using.stack},
            checked=tuple(
                [Checked(checkpoint, failure=broken[name]) for checkpoint in firsts]
                if name in broken
                else [checked for one, checked in found if one.fusion == name]
            ),
        )
        for name in names
    ]


def states(names: Sequence[str], sources: Sources, chip: Chip) -> tuple[dict[str, bool], dict[str, str]]:
    """Ask each fusion whether it is on for a chip; what cannot be imported or told counts as on, and why is told."""
    enabled, broken = dict.fromkeys(names, True), dict[str, str]()
    for name in names:
        try:
            enabled[name] = sources.enabled(name, chip)
        except InvalidError as error:
            broken[name] = error.found
        if found := sources.unseen(name):
            broken[name] = (
                "it reaches for what a fusion may not, so its digest cannot hold all that it runs: "
                f"{'; '.join(found[:3])} (docs/gate-details.md says what it may)"
            )
    return enabled, broken


def _measured(draft: Evidence, workloads: Sequence[str], duels: Duels) -> Evidence:
    own = [duels[draft.fusion, workload] for workload in workloads if (draft.fusion, workload) in duels]
    cautions = tuple(dict.fromkeys(caution for one in own for caution in one.cautions))
    return replace(
        draft,
        stacks=next((dict(one.stacks) for one in own if one.stacks), draft.stacks),
        checked=tuple(_of_outputs(one, cautions) for one in draft.checked),
        workloads=tuple(one.measured for one in own),
        notes=tuple(one.found for one in cautions),
    )


def _of_outputs(checked: Checked, cautions: Sequence[Caution]) -> Checked:
    """A knob has its processes compared and no models: it must leave every token as it is."""
    differ = next((one.found for one in cautions if one.code == "outputs-differ"), None)
    if differ is None or checked.dispatch is None or not checked.dispatch.same:
        return checked
    return replace(checked, parity=Parity(False, True, differ))


def _concluded(record: Evidence, policy: GatePolicy, using: Dependencies) -> Evidence:
    """Say what this class alone amounts to, by the gate's own rules."""
    if not record.enabled and not _against(record, policy):
        return replace(record, reason="off on this class, and the decode graph is unchanged there")
    facts = facts_of_record(record, f"{record.fusion}.json")
    noise = {using.chip.chip_class: using.noise} if using.noise else None
    ruling = rule([record.fusion], [facts], policy, today=using.now().date(), noise=noise)
    cells = [cell for cell in ruling.cells if cell.chip_class == record.chip.chip_class]
    worst = min(cells, key=lambda cell: WORST_FIRST.index(cell.verdict or Verdict.WIN))
    return replace(record, verdict=(worst.verdict or Verdict.NOT_MEASURED).value, reason=worst.reason)


def _against(record: Evidence, policy: GatePolicy) -> list[Objection]:
    off = not record.enabled
    return [found for one in record.checked for found in sound(one, policy, name=record.fusion, off=off)]


def expand(names: Iterable[str], sources: Sources) -> tuple[str, ...]:
    """Return the fusions that ``--fusion`` names: ``all`` is every one, each once. Raises UsageError."""
    found = dict.fromkeys(one for name in names for one in (sources.names() if name == "all" else (name,)))
    for name in found:
        sources.files(name)
    return tuple(found)
