"""From the launches of a duel to its judgements: each launch reduced to a number, all workloads judged as a family."""

import datetime as dt
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy.stats import t as student_t

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.multiple import Duel, judge_many
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.steps import by_shape, differ_in_shape, estimate
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict, invalid, not_measured

CONTRADICTION, CONTRADICTION_ALPHA = 0.02, 0.001
"""Log ratio by which whole runs and blocks may differ in any case, and the error at which more than that counts."""
UNSUPPORTED_ALPHA = 0.1
"""The error at which whole runs that miss a win or loss by half of it or more keep it from being said."""
_LEAST_WHOLE_RUNS = 3

_SHAPE = Caution(
    "shape",
    "the steps of the arms scatter in different shapes, so whole times are compared",
    "look at the steps in the record: one arm may be slow now and then",
)


def judgements(
    state: Mapping[str, ComparisonState], *, budget_s: float, policy: Policy, noise: NoiseFloor | None, today: dt.date
) -> Mapping[str, Judgement]:
    """Judge all workloads as one family, each of ``budget_s``; a failed one is not-measured or invalid by its error."""
    sound = {name: one for name, one in state.items() if one.failure is None}
    duels = {name: Duel(estimates(one.launches), budget_s, budget_spent=one.spent) for name, one in sound.items()}
    found = dict(judge_many(duels, policy, noise=noise, today=today)) if duels else {}
    for name, judged in found.items():
        if differ_in_shape(_each(sound[name].launches)):
            found[name] = replace(judged, cautions=(*judged.cautions, _SHAPE))
        found[name] = _borne_out(found[name], whole_runs(duels[name].launches, sound[name].launches))
    return {name: found[name] if name in found else _failed(one) for name, one in state.items()}


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """Whole runs beside the blocks of their launches: what both say, and the ``chance`` of so much between them.

    ``apart`` is the mean difference of their log ratios, ``effect`` that of the blocks.
    """

    text: str
    apart: float
    effect: float
    chance: float

    @property
    def contradict(self) -> bool:
        """Whether what blocks show does not hold for decode."""
        return abs(self.apart) > CONTRADICTION and self.chance < CONTRADICTION_ALPHA

    @property
    def leave_open(self) -> bool:
        """Whether they seem to miss half of what blocks show, or more."""
        return abs(self.apart) > max(CONTRADICTION, abs(self.effect) / 2) and self.chance < UNSUPPORTED_ALPHA


def whole_runs(estimated: Sequence[LaunchEstimate], launches: Sequence[Launch]) -> WholeRuns | None:
    """Hold blocks against the whole runs of their launches, by a t test over launches; None for fewer than three.

    What makes blocks alone faster (results kept from one to the next, work outside the clock) makes no run faster.
    Whole runs scatter ten times as far as launches of blocks do, so they tell such a program and no small effect.
    """
    pairs = [
        (one.log_ratio, math.log(launch.whole_s[0] / launch.whole_s[1]))
        for one, launch in zip(estimated, launches, strict=True)
        if launch.whole_s is not None
    ]
    if len(pairs) < _LEAST_WHOLE_RUNS:
        return None
    apart = [whole - blocks for blocks, whole in pairs]
    mean, error = statistics.fmean(apart), max(statistics.stdev(apart), 1e-4) / math.sqrt(len(apart))
    effect, whole = (statistics.fmean(column) for column in zip(*pairs, strict=True))
    says = f"blocks say {100 * math.expm1(effect):+.1f} % and whole runs {100 * math.expm1(whole):+.1f} %"
    chance = 2 * float(student_t.sf(abs(mean) / error, len(apart) - 1))
    return WholeRuns(f"{says}, over {len(pairs)} launches", mean, effect, chance)


def _borne_out(judged: Judgement, runs: WholeRuns | None) -> Judgement:
    if runs is not None and runs.contradict:
        reason = f"{runs.text}: what short blocks show does not hold for decode"
        return replace(invalid(reason), launches=judged.launches, measured_s=judged.measured_s)
    if runs is not None and runs.leave_open and judged.verdict in (Verdict.WIN, Verdict.LOSS):
        return replace(judged, verdict=Verdict.INCONCLUSIVE, reason=f"{runs.text}: whole runs do not bear it out yet")
    return judged


def estimates(launches: Sequence[Launch]) -> tuple[LaunchEstimate, ...]:
    """Reduce each launch to its estimate."""
    return by_shape(_each(launches))


def _each(launches: Sequence[Launch]) -> tuple[LaunchEstimate, ...]:
    return tuple(
        _estimate(
            tuple(one.tpot_s(arm) for arm in ARMS), tuple(one.step_s(arm) for arm in ARMS), one.seconds, one.session
        )
        for one in launches
    )


@lru_cache(maxsize=8192)
def _estimate(
    blocks: tuple[tuple[float, ...], ...],
    steps: tuple[tuple[tuple[float, ...], ...], ...],
    seconds: float,
    session: int,
) -> LaunchEstimate:
    """A look comes after every launch, and all the launches before it have not changed."""
    return estimate(*blocks, steps=steps, seconds=seconds, session=session)


def _failed(one: ComparisonState) -> Judgement:
    error = one.failure
    assert error is not None
    make = invalid if error.verdict == Verdict.INVALID else not_measured
    judged = replace(make(error.found), launches=len(one.launches), measured_s=one.seconds)
    if not error.remedy:
        return judged
    said = f"expected {error.expected}" if error.expected else error.found
    return replace(judged, cautions=(Caution(type(error).__name__, said, error.remedy),))
