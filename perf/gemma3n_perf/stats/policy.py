"""What counts as a change, and how much error a claim may carry."""

from dataclasses import dataclass, replace

from gemma3n_perf.errors import UsageError

MARGIN = 0.01
"""An effect within this of zero counts as none, unless the policy has a wider margin."""

ALPHA_SAME = 0.0075
"""Error of a no-change. At a true 1 % it then errs in at most 2 of 100 duels whatever the shape of the noise
(``python -m studies.operating_characteristics``)."""

RARE = 0.05
"""No-change of typical tokens is withheld where the interval of whole times reaches beyond this and the margin."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of a verdict. Effects are fractions of throughput (0.005 is 0.5 %), times seconds.

    ``alpha``: two-sided error of what decides: of one comparison, or of all claims of change among ``shares`` of them.
    ``alpha_same``: the same for no-change, less, because launches that are skewed or depend on each other make it err
    more often than independent Gaussian ones do.
    ``reported``: two-sided error of the interval that is reported, 0.05 for 95 %.
    ``shares``: how many comparisons share the error of a claim of change. No-change needs no share: see ``multiple``.
    ``power``: chance with which a detectable effect is shown.
    ``rho``: how the error is spent over measuring time (1 early, 3 late).
    ``min_launches``: launches before the first look.
    ``prior_weight``: how many launches a calibrated spread is worth.
    ``suspicious``: whether to withhold no-change by a margin wider than usual where the interval excludes zero, so that
    what looks like a small loss is measured further.
    ``session_sd``: how far whole sessions are taken to lie apart, log units; 0 where a verdict is of its own session.
    """

    minimum_effect: float = 0.005
    margin: float = MARGIN
    alpha: float = 0.02
    alpha_same: float = ALPHA_SAME
    reported: float = 0.05
    shares: int = 1
    power: float = 0.8
    rho: float = 1.5
    min_launches: int = 3
    prior_weight: int = 12
    stale_after_days: int = 90
    budget_s: float = 60.0
    suspicious: bool = False
    session_sd: float = 0.0

    def __post_init__(self) -> None:
        """Refuse rules that cannot be carried out."""
        if not 0 < self.minimum_effect < 1 or not 0 < self.margin < 1:
            raise UsageError(
                f"minimum effect {self.minimum_effect} and margin {self.margin}",
                expected="fractions between 0 and 1, for instance 0.005 for 0.5 %",
            )
        if self.margin < self.minimum_effect:
            raise UsageError(
                f"margin {self.margin} is below the minimum effect {self.minimum_effect}",
                expected="a margin at least as large as the smallest effect that counts",
            )
        if not 0 < self.alpha < 0.5 or not 0 < self.power < 1 or self.rho <= 0:
            raise UsageError(f"alpha {self.alpha}, power {self.power}, rho {self.rho}", expected="alpha below 0.5")
        if not self.alpha <= self.reported < 0.5 or self.shares < 1 or not 0 <= self.session_sd < 1:
            raise UsageError(
                f"reported error {self.reported}, {self.shares} shares, sessions {self.session_sd} apart",
                expected="a reported error from alpha to 0.5, 1 share or more, and a spread of 0 or more",
            )
        if self.min_launches < 2 or self.prior_weight < 0:
            raise UsageError(
                f"first look after {self.min_launches} launches, prior weight {self.prior_weight}",
                expected="2 launches or more, and a weight of 0 or more",
            )
        if not self.budget_s > 0:
            raise UsageError(f"a budget of {self.budget_s} s", expected="more than 0 s")

    @property
    def of_no_change(self) -> "Policy":
        """The rules of no-change, which shares its error with no other workload, and has less of it."""
        return replace(self, shares=1, alpha=min(self.alpha, self.alpha_same))
