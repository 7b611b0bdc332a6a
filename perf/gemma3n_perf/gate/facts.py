"""What the gate reads out of a piece of evidence, and what it decides: values alone, no rule."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.verdicts import Verdict

OFF = "off, proved"
"""What stands in a cell of a class where the fusion is off and the decode graph was seen unchanged."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Whether the fused model decodes what the unfused one does. ``figures`` are those of ``fusions.parity``."""

    passed: bool
    finite: bool
    reason: str = ""
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """How the decode graph changed: ``changed`` by ``kind.name`` as (before, after), ``nodes`` in all.

    ``complaints`` say where that is not what the fusion declares. ``knobs`` are variables set before the process
    starts; ``same`` is declared by a candidate that consists of those alone, and leaves the graph as it is.
    """

    nodes: tuple[int, int]
    changed: dict[str, tuple[int, int]] = field(default_factory=dict)
    complaints: tuple[str, ...] = ()
    knobs: dict[str, str] = field(default_factory=dict)
    same: bool = False

    @property
    def seen(self) -> bool:
        """Whether the fusion's path was taken, as far as the graph can tell."""
        return not self.complaints and (bool(self.knobs) if self.same else bool(self.changed))


@dataclass(frozen=True, slots=True)
class Checked:
    """What needs no duel, of one checkpoint. ``memory_ratio`` is of both models' bytes to one's; None is unknown.
    ``in_use_s`` are seconds per token of ``gate.in_use``, unfused and fused, in turns; none in older records."""

    checkpoint: str
    dispatch: Dispatch | None = None
    parity: Parity | None = None
    memory_ratio: float | None = None
    weights_kept: bool | None = None
    failure: str | None = None
    in_use_s: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Objection:
    """A finding against admission: what it makes of the evidence, and the class that it is about, if about one."""

    verdict: Verdict
    found: str
    remedy: str
    chip_class: str | None = None


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """One workload's duel: its launches in the order they ran, and the seconds of measuring it was given.

    ``failure`` says how the duel broke off; what was launched before that is not judged.
    ``doubt`` says why a win or a loss that blocks show is not believed yet.
    ``peak_ratio`` is of the candidate's peak of memory to the baseline's, where it was reported.
    """

    workload: str
    launches: tuple[LaunchEstimate, ...]
    budget_s: float
    spent: bool = False
    failure: Objection | None = None
    doubt: str | None = None
    peak_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class EvidenceFacts:
    """One piece of evidence. ``source`` is its file; ``objections`` are those that reading it and git brought up.
    ``attempts`` is how often these sources were measured."""

    source: str
    fusion: str
    chip_class: str
    date: dt.date | None = None
    off: bool = False
    versions: tuple[str, str | None] | None = None
    workloads: tuple[WorkloadFacts, ...] = ()
    checked: tuple[Checked, ...] = ()
    objections: tuple[Objection, ...] = ()
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the gate's table. ``verdict`` None is a class where the fusion is off, proved.

    Effects are fractions of throughput; ``sessions`` one effect for each session. A workload that the policy does not
    ask for is not ``required``: it refuses only where it loses, or seems to.
    """

    fusion: str
    chip_class: str
    workload: str
    verdict: Verdict | None
    reason: str
    remedy: str = ""
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    sessions: tuple[float, ...] = ()
    required: bool = True

    @property
    def word(self) -> str:
        """What the table says."""
        return OFF if self.verdict is None else self.verdict.value

    @property
    def refuses(self) -> bool:
        """Whether this cell alone keeps the fusion out."""
        if self.required:
            return self.verdict not in (Verdict.WIN, None)
        seems_to = self.verdict is Verdict.INCONCLUSIVE and self.high is not None and self.high < 0
        return seems_to or self.verdict in (Verdict.LOSS, Verdict.INVALID)


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one fusion or composition. ``wins`` are the classes it is admitted on, by effect there."""

    fusion: str
    admitted: bool
    reasons: tuple[Objection, ...] = ()
    wins: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the gate decided of each fusion and composition, with every line of its table. Empty: nothing to gate.

    ``session_sd`` is how far its policy takes sessions to lie apart, a fraction.
    """

    decisions: tuple[Decision, ...] = ()
    cells: tuple[Cell, ...] = ()
    session_sd: float | None = None

    def cells_of(self, fusion: str) -> list[Cell]:
        """Return the lines of one fusion or composition."""
        return [cell for cell in self.cells if cell.fusion == fusion]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Every verdict that refused something, the most severe first."""
        found = {one.verdict for decision in self.decisions for one in decision.reasons}
        return tuple(sorted(found, key=_SEVERITY.index))

    @property
    def exit_code(self) -> int:
        """0 admitted; else that of the most severe refusal: invalid 5, loss or no-change 1, then 4, then 3."""
        worst = next(iter(self.verdicts), Verdict.WIN)
        return 1 if worst is Verdict.NO_CHANGE else worst.exit_code


_SEVERITY = (Verdict.INVALID, Verdict.LOSS, Verdict.NO_CHANGE, Verdict.NOT_MEASURED, Verdict.INCONCLUSIVE, Verdict.WIN)
