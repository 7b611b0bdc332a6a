"""One workload on one chip class, in commit order: the steps in it, and what duels said of them.

Opinion: asv picks the penalty of its piecewise fit by an information criterion, which on 30 commits at 2 % scatter
finds one 5 % step in eight. The solver is fine: given a penalty in proportion to the scatter it finds nine in ten,
nearly what Apache Otava finds, without Otava's false steps and its 35 packages (docs/history.md has the comparison).

A step is a suspicion. Only a duel of the two neighbouring commits confirms it.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

from gemma3n_perf.history.results import ResultFile, Value
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Judgement, Verdict

PENALTY = 2.5
"""Scatters times log(points) that one more piece must save. A/A series of 30 to 200 points show a step below 1 %."""

CHANCE = 0.002
"""The two levels of a step must differ by a rank test at this error: asv's own, between two commits' samples."""

LEAST_POINTS = next(n for n in count(2) if 2 / math.comb(n, n // 2) < CHANCE)
"""The fewest points of which a rank test can tell halves apart at that error: 13. A step near an end needs more before
it, three after it where there are thirty."""

_MIN_PIECE = 2
_BY_MEDIAN, _BY_MEAN = 1.4826 / math.sqrt(2), math.sqrt(math.pi) / 2

Key = tuple[str, str, str, str]
"""Of what a duel said: chip class, workload, commit before, commit after."""


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


@dataclass(frozen=True, slots=True)
class Step:
    """A ``change`` of level, the commits on its two sides, and what a duel of them said, if there was one, and when."""

    change: Change
    before: str
    after: str
    judgement: Judgement | None = None
    date: str = ""

    @property
    def standing(self) -> str:
        """``suspected`` without a duel, ``confirmed`` or ``refuted`` by one, ``open`` where it could not tell."""
        if self.judgement is None:
            return "suspected"
        if self.judgement.verdict == (Verdict.LOSS if self.change.slower else Verdict.WIN):
            return "confirmed"
        return "refuted" if self.judgement.verdict.decided else "open"


@dataclass(frozen=True, slots=True)
class Series:
    """One workload on one chip class: values by commit, in commit order, and the steps in them."""

    chip_class: str
    workload: str
    points: Mapping[str, Value]
    steps: tuple[Step, ...]


def scatter(values: Sequence[float]) -> float:
    """Return the relative scatter from point to point, in which one step hardly shows; 0 for fewer than two points.

    The larger of two estimates from the differences of neighbours, in logarithms: their median, which a step cannot
    move, and their mean, which knows of tails (a GPU's sessions agree to 0.5 % and now and then differ by 9 %).
    """
    differences = [abs(math.log(b) - math.log(a)) for a, b in pairwise(values)]
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
    penalty = PENALTY * max(scatter(values), least_scatter, 1e-9) * math.log(len(logs))
    rights, _, _ = solve_potts_approx(logs, [1.0] * len(logs), gamma=penalty, min_size=_MIN_PIECE)
    found, place = [], 0
    for one, other in pairwise(_believable([logs[left:right] for left, right in pairwise([0, *rights])])):
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
        if max(chances) < CHANCE:
            break
        worst = chances.index(max(chances))
        pieces[worst : worst + 2] = [pieces[worst] + pieces[worst + 1]]
    return pieces


def series(
    files: Iterable[ResultFile],
    order: Sequence[str],
    *,
    noise: Mapping[str, NoiseFloor],
    confirmed: Mapping[Key, tuple[Judgement, str]],
    anchored: Mapping[tuple[str, str], Mapping[str, tuple[Any, Value]]] | None = None,
) -> tuple[Series, ...]:
    """Arrange results into series. ``order`` is the repository's commits, oldest first: dates do not count.

    ``noise`` is by chip class; ``confirmed`` are what duels said, and when. ``anchored`` are values from duels with an
    anchor, by class and workload: where there are enough of them, steps are looked for there; the rest is context.
    """
    place = {commit: index for index, commit in enumerate(order)}
    points: dict[tuple[str, str], dict[str, Value]] = {}
    for one in sorted((one for one in files if one.commit in place), key=lambda one: place[one.commit]):
        for workload, value in one.times.items():
            points.setdefault((one.machine, workload), {})[one.commit] = value
    made = []
    duelled = {where: {commit: value for commit, (_, value) in own.items()} for where, own in (anchored or {}).items()}
    for where, listed in sorted((duelled | points).items()):
        (chip_class, workload), own = where, duelled.get(where, {})
        values = own if len(own) >= LEAST_POINTS else listed
        measured = {commit: value.result for commit, value in values.items() if value.result is not None}
        commits, steps, known = list(measured), [], noise.get(chip_class)
        floor, least_scatter = (known.effect, known.launch_sd) if known else (0.0, 0.0)
        if values is own:
            least_scatter /= math.sqrt(statistics.median(max(len(value.samples), 1) for value in own.values()))
        floor = max(Policy().minimum_effect, floor)
        for change in changes(list(measured.values()), floor=floor, least_scatter=least_scatter):
            before, after = commits[change.after - 1 : change.after + 1]
            steps.append(Step(change, before, after, *confirmed.get((chip_class, workload, before, after), (None, ""))))
        made.append(Series(chip_class, workload, listed, tuple(steps)))
    return tuple(made)
