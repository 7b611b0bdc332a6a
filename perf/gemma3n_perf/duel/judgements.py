"""From the launches of a duel to its judgements: each launch reduced to a number, all workloads judged as a family."""

import datetime as dt
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
UNSUPPORTED = 0.03
"""Log ratio, or half the effect where that is more, by which whole runs may miss a win or loss and yet support it."""
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
        found[name] = borne_out(found[name], duels[name].launches, sound[name].launches)
    return {name: found[name] if name in found else _failed(one) for name, one in state.items()}


def borne_out(judged: Judgement, estimated: Sequence[LaunchEstimate], launches: Sequence[Launch]) -> Judgement:
    """Hold a judgement of blocks against the whole runs of their launches.

    What makes blocks alone faster (results kept from one to the next, work outside the clock) makes no run faster.
    Where whole runs contradict the blocks, by a t test over launches, the judgement is invalid. Where they only lie too
    far from a win or loss to bear it out, it is inconclusive.
    """
    pairs = [
        (one.log_ratio, math.log(launch.whole_s[0] / launch.whole_s[1]))
        for one, launch in zip(estimated, launches, strict=True)
        if launch.whole_s is not None
    ]
    if len(pairs) < _LEAST_WHOLE_RUNS:
        return judged
    apart = [whole - blocks for blocks, whole in pairs]
    mean, error = statistics.fmean(apart), max(statistics.stdev(apart), 1e-4) / math.sqrt(len(apart))
    effect = statistics.fmean(blocks for blocks, _ in pairs)
    blocks, whole = (100 * math.expm1(statistics.fmean(column)) for column in zip(*pairs, strict=True))
    found = f"blocks say {blocks:+.1f} % and whole runs {whole:+.1f} %, over {len(pairs)} launches"
    if abs(mean) > CONTRADICTION and 2 * student_t.sf(abs(mean) / error, len(apart) - 1) < CONTRADICTION_ALPHA:
        reason = f"{found}: what short blocks show does not hold for decode"
        return replace(invalid(reason), launches=judged.launches, measured_s=judged.measured_s)
    if judged.verdict in (Verdict.WIN, Verdict.LOSS) and abs(mean) > max(UNSUPPORTED, abs(effect) / 2):
        return replace(judged, verdict=Verdict.INCONCLUSIVE, reason=f"{found}: whole runs do not bear it out yet")
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
