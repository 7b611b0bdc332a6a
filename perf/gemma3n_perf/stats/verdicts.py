"""The six verdicts, and a judgement: a verdict with everything that led to it."""

import math
from dataclasses import dataclass
from enum import StrEnum

from gemma3n_perf.stats.policy import MARGIN


class Verdict(StrEnum):
    """The result of one comparison. ``exit_code`` is what the command line returns for it."""

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
    def is_claim(self) -> bool:
        """Whether a change is claimed: win or loss."""
        return self in (Verdict.WIN, Verdict.LOSS)

    @property
    def decided(self) -> bool:
        """Whether something was shown: win, loss or no-change."""
        return self.is_claim or self is Verdict.NO_CHANGE


_EXIT = {
    Verdict.WIN: 0,
    Verdict.LOSS: 1,
    Verdict.NO_CHANGE: 0,
    Verdict.INCONCLUSIVE: 3,
    Verdict.NOT_MEASURED: 4,
    Verdict.INVALID: 5,
}


def decide(low: float, high: float, *, threshold: float, margin: float) -> Verdict:
    """Return the verdict of an interval of effects; all are fractions of throughput."""
    if low > threshold:
        return Verdict.WIN
    if high < -threshold:
        return Verdict.LOSS
    return Verdict.NO_CHANGE if low > -margin and high < margin else Verdict.INCONCLUSIVE


class NoiseStatus(StrEnum):
    """What became of the class's calibrated noise floor in a judgement."""

    USED = "used"
    MISSING = "missing"
    STALE = "stale"
    CONTRADICTED = "contradicted"


@dataclass(frozen=True, slots=True)
class Caution:
    """A doubt about a judgement: its ``code`` for programs, what was ``found`` and the ``remedy`` for readers."""

    code: str
    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with its evidence. Effects are candidate throughput / baseline throughput - 1, times seconds.

    ``effect``, ``low``, ``high``: the estimate and the interval that is reported, at confidence ``level``.
    ``bound_low``, ``bound_high``: the interval that decides; it is wider, because it accounts for looking after every
    launch. An undecided duel reports it too where the narrower one alone would look decided.
    ``threshold``: the larger of minimum effect and noise floor. ``margin``: what bounds no-change.
    ``launch_sd``: spread of the launches, in log units.
    ``detectable``: smallest effect that these launches would show with the policy's power, and
    ``detectable_at_budget`` what the whole budget would.
    ``needed_s``: measuring time after which an effect of this size would be shown.
    What could not be computed from what was measured is None.
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
    cautions: tuple[Caution, ...] = ()

    @property
    def word(self) -> str:
        """The verdict; a no-change by a margin wider than usual names it: ``no change of 3 %``."""
        wide = self.verdict is Verdict.NO_CHANGE and self.margin is not None and self.margin > MARGIN
        return f"no change of {100 * (self.margin or 0.0):.3g} %" if wide else self.verdict.value


def not_measured(reason: str) -> Judgement:
    """Nothing was measured, so nothing is claimed."""
    return Judgement(Verdict.NOT_MEASURED, reason)


def invalid(reason: str) -> Judgement:
    """What was measured must not be compared."""
    return Judgement(Verdict.INVALID, reason)


def finite(value: float | None) -> float | None:
    """Return an end of an interval as records hold it: None where it is unknown or infinite."""
    return value if value is not None and math.isfinite(value) else None
