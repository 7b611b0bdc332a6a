"""Steps in a series of times per token: asv's solver, with a penalty from the series' own scatter.

Opinion: asv picks the penalty of its piecewise fit by an information criterion, which on 30 commits at 2 % scatter
finds one 5 % step in eight. The solver is fine: given a penalty in proportion to the scatter it finds nine in ten,
nearly what Apache Otava finds, without Otava's false steps and its 35 packages (docs/history.md has the comparison).

A step is a suspicion. Only a duel of the two neighbouring commits confirms it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise

PENALTY = 2.5
"""Scatters times log(points) that one more piece must save. A/A series of 30 to 200 points show a step below 1 %."""

CHANCE = 0.002
"""The two levels of a step must differ by a rank test at this error: asv's own, between two commits' samples."""

LEAST_POINTS = next(n for n in count(2) if 2 / math.comb(n, n // 2) < CHANCE)
"""The fewest points of which a rank test can tell halves apart at that error: 13. A step near an end needs more before
it, three after it where there are thirty."""

MIN_PIECE = 2
_BY_MEDIAN, _BY_MEAN = 1.4826 / math.sqrt(2), math.sqrt(math.pi) / 2


@dataclass(frozen=True, slots=True)
class Change:
    """A change of level between positions ``after - 1`` and ``after`` of a series.

    ``before_s`` and ``after_s`` are the levels, seconds; ``effect`` is the change of throughput as a fraction, below 0
    where decode became slower.
    """

    after: int
    before_s: float
    after_s: float
    effect: float

    @property
    def slower(self) -> bool:
        """Whether it is a regression: time went up."""
        return self.effect < 0


def scatter(values: Sequence[float]) -> float:
    """Return the relative scatter from point to point, in which one step hardly shows; 0 for fewer than two points.

    The larger of two estimates from the differences of neighbours, in logarithms: their median, which a step cannot
    move, and their mean, which knows of tails (a GPU's sessions agree to 0.5 % and now and then differ by 9 %).
    """
    logs = [math.log(value) for value in values]
    differences = [abs(b - a) for a, b in pairwise(logs)]
    if not differences:
        return 0.0
    return max(_BY_MEDIAN * statistics.median(differences), _BY_MEAN * statistics.fmean(differences))


def changes(values: Sequence[float], *, floor: float, least_scatter: float = 0.0) -> tuple[Change, ...]:
    """Return the steps of ``values`` (seconds per token, in commit order), those at or below ``floor`` left out.

    ``floor`` is the smallest effect that counts: the larger of the policy's minimum and the class's noise floor.
    ``least_scatter`` is what calibration says of the class: a series that looks quieter by luck is not believed.
    """
    if len(values) < LEAST_POINTS:
        return ()
    from asv.step_detect import solve_potts_approx  # asv takes a moment to import

    logs = [math.log(value) for value in values]
    wobble = max(scatter(values), least_scatter, 1e-9)
    penalty = PENALTY * wobble * math.log(len(logs))
    rights, _, _ = solve_potts_approx(logs, [1.0] * len(logs), gamma=penalty, min_size=MIN_PIECE)
    pieces = _believable([logs[left:right] for left, right in pairwise([0, *rights])])
    found, place = [], 0
    for one, other in pairwise(pieces):
        place += len(one)
        before, after = statistics.median(one), statistics.median(other)
        effect = math.exp(before - after) - 1
        if abs(effect) > floor:
            found.append(Change(place, math.exp(before), math.exp(after), effect))
    return tuple(found)


def _believable(pieces: list[list[float]]) -> list[list[float]]:
    """Join neighbours that a rank test cannot tell apart, the most alike first: two wild points make no level."""
    from scipy.stats import mannwhitneyu  # half a second to import, and most series have no step

    while len(pieces) > 1:
        chances = [float(mannwhitneyu(one, other).pvalue) for one, other in pairwise(pieces)]
        worst = max(range(len(chances)), key=chances.__getitem__)
        if chances[worst] < CHANCE:
            break
        pieces[worst : worst + 2] = [pieces[worst] + pieces[worst + 1]]
    return pieces
