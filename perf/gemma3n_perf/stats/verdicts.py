"""The six verdicts, and a judgement: a verdict with everything that led to it."""

from dataclasses import dataclass, field
from enum import StrEnum


class Verdict(StrEnum):
    """The answer to one comparison. ``exit_code`` is what the command line returns for it."""

    WIN = "win"
    LOSS = "loss"
    NO_CHANGE = "no-change"
    INCONCLUSIVE = "inconclusive"
    NOT_MEASURED = "not-measured"
    INVALID = "invalid"

    @property
    def exit_code(self) -> int:
        """Exit code: 0 for win and no-change, 1 loss, 3 inconclusive, 4 not-measured, 5 invalid."""
        return _EXIT[self]

    @property
    def decided(self) -> bool:
        """Whether something was shown: win, loss or no-change."""
        return self in (Verdict.WIN, Verdict.LOSS, Verdict.NO_CHANGE)


_EXIT = {
    Verdict.WIN: 0,
    Verdict.LOSS: 1,
    Verdict.NO_CHANGE: 0,
    Verdict.INCONCLUSIVE: 3,
    Verdict.NOT_MEASURED: 4,
    Verdict.INVALID: 5,
}


class NoiseStatus(StrEnum):
    """What became of the class's calibrated noise floor in a judgement."""

    USED = "used"
    MISSING = "missing"
    STALE = "stale"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True)
class Caution:
    """A doubt about a judgement: what was found and what to do about it. Data, not a print."""

    code: str
    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its evidence. Effects are candidate throughput / baseline throughput - 1.

    ``low`` and ``high`` are the interval at ``level`` (None where too little was measured), ``bound_low``
    and ``bound_high`` the wider one that accounts for looking after every launch and decides; they are
    the same where an undecided duel's narrower interval would look decided.
    ``threshold`` is max(minimum effect, noise floor). ``launch_sd`` is in log units. ``detectable`` is
    the smallest effect these launches would show with the policy's power, ``detectable_at_budget`` what
    the whole budget would. ``needed_s`` is the measuring time after which the effect seen would be told.
    """

    verdict: Verdict
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    bound_low: float | None = None
    bound_high: float | None = None
    level: float = 0.95
    threshold: float | None = None
    margin: float | None = None
    launches: int = 0
    measured_s: float = 0.0
    launch_sd: float | None = None
    detectable: float | None = None
    detectable_at_budget: float | None = None
    needed_s: float | None = None
    noise: NoiseStatus = NoiseStatus.MISSING
    noise_floor: float | None = None
    cautions: tuple[Caution, ...] = field(default_factory=tuple)

    @property
    def exit_code(self) -> int:
        """The verdict's exit code."""
        return self.verdict.exit_code


def claims(judgement: Judgement) -> bool:
    """Whether a change is claimed."""
    return judgement.verdict in (Verdict.WIN, Verdict.LOSS)


def closes(judgement: Judgement) -> bool:
    """Whether it was decided without claiming a change."""
    return judgement.verdict is Verdict.NO_CHANGE


def not_measured(reason: str) -> Judgement:
    """Nothing was measured, so nothing is claimed."""
    return Judgement(Verdict.NOT_MEASURED, reason)


def invalid(reason: str) -> Judgement:
    """What was measured must not be compared."""
    return Judgement(Verdict.INVALID, reason)
