"""From the launches of a duel to its judgements: each launch reduced to a number, all workloads judged as a family."""

import datetime as dt
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from scipy.special import stdtr

from gemma3n_perf.duel.agreement import ARMS
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.multiple import Duel, judge_many
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.steps import by_shape, estimate, whole_times_count
from gemma3n_perf.stats.student import chance_of, mean_and_error
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict, invalid, not_measured

CONTRADICTION, CONTRADICTION_ALPHA = 0.02, 0.001
"""Log ratio by which whole runs and blocks may differ in any case, and the error at which more than that counts."""
TWOFOLD = math.log(2)
"""Whole runs and blocks that lie so far apart in every launch contradict each other however launches scatter."""
UNSUPPORTED_ALPHA = 0.1
"""The error at which whole runs that miss a win or loss by half of it or more keep it from being said."""
SLOWED, SLOWED_ALPHA = 0.1, 0.001
"""How much slower the unfused model may be in a process that it shares than alone, and the error at which more is sure:
processes of one program differ by 7 % on a shared host, and here two that are not paired are compared."""
SLOWED_BESIDE, SLOWED_BESIDE_ALPHA = 0.03, 0.01
"""How much slower the baseline may be beside a candidate than after it, or half of what the candidate gains, whichever
is less; and the error at which more keeps a win from being said."""

HIDDEN = 0.003
"""How much more of a block of the candidate than of the baseline's may lie outside its own clock, over all launches: a
fraction. Honest arms have up to 0.0011, and a clock that hides less gains less than counts as a change."""

OUTSIDE_RUN, OUTSIDE_PREFILL = 0.1, 0.25
"""How much longer than the baseline's a candidate's whole run may take outside its own clock, where the prompt is read:
a fraction of the run, and of what the baseline takes there. One run is no proof: on an H100, where the prompt goes in
one token at a time, one of identical arms took 0.43 longer."""

MOST_TIES = 3
"""Launches whose texts near ties may part, or half of all; of texts that part as the arms prepare, one. A near tie is
seldom, and seldom decided by rounding: a program that parts at them all the time has found a way to make them."""

LEAST_LAUNCHES = 3
"""Of which whole runs, or the unfused model alone, say something."""

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
        if whole_times_count(_each(sound[name].launches)):
            found[name] = replace(judged, cautions=(*judged.cautions, _SHAPE))
        found[name] = _borne_out(found[name], reservations(duels[name].launches, sound[name].launches))
    return {name: found[name] if name in found else _failed(one) for name, one in state.items()}


@dataclass(frozen=True, slots=True)
class WholeRuns:
    """Whole runs beside the blocks of their launches: what both say, and the ``chance`` of so much between them.

    ``apart`` is the mean difference of their log ratios, ``least`` that of the launch where they differ least, 0 where
    launches disagree on the direction, ``effect`` the mean log ratio of the blocks.
    """

    text: str
    apart: float
    least: float
    effect: float
    chance: float

    @property
    def contradict(self) -> bool:
        """Whether what blocks show does not hold for decode."""
        sure = abs(self.apart) > CONTRADICTION and self.chance < CONTRADICTION_ALPHA
        return sure or self.least > TWOFOLD

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
    if len(pairs) < LEAST_LAUNCHES:
        return None
    apart = [whole - blocks for blocks, whole in pairs]
    mean, error = mean_and_error(apart)
    effect, whole = (statistics.fmean(column) for column in zip(*pairs, strict=True))
    says = f"blocks say {100 * math.expm1(effect):+.1f} % and whole runs {100 * math.expm1(whole):+.1f} %"
    chance = 2 * float(stdtr(len(apart) - 1, -abs(mean) / error))
    least = min(map(abs, apart)) if len({one > 0 for one in apart}) == 1 else 0.0
    return WholeRuns(f"{says}, over {len(pairs)} launches", mean, least, effect, chance)


def baseline_slowed(launches: Sequence[Launch]) -> tuple[str, bool] | None:
    """Say that the unfused model is slower where it shares a process than alone, and whether launches make that sure.

    None where it is not, or too few launches tell.
    """
    pairs = [(statistics.median(one.tpot_s(ARMS[0])), one.alone_s) for one in launches if one.alone_s is not None]
    apart = [math.log(shared / alone) for shared, alone in pairs]
    if len(pairs) < LEAST_LAUNCHES or statistics.fmean(apart) < math.log1p(SLOWED):
        return None
    shared, alone = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    text = (
        f"the baseline takes {shared:.3g} ms a token in the process that it shares with fusions, and {alone:.3g} ms in "
        f"one without, over {len(pairs)} launches: it is slowed there"
    )
    return text, chance_of(apart) < SLOWED_ALPHA


def slowed_beside(launches: Sequence[Launch], gain: float) -> tuple[str, bool] | None:
    """Say that the baseline is slower beside a candidate than when that has ended, and whether launches make it sure.

    None where it is not, by much less than ``gain`` (the candidate's mean log ratio), or too few launches tell.
    """
    pairs = [(statistics.median(one.tpot_s(ARMS[0])), one.after_s) for one in launches if one.after_s is not None]
    apart = [math.log(beside / after) for beside, after in pairs]
    if len(pairs) < LEAST_LAUNCHES or statistics.fmean(apart) <= min(math.log1p(SLOWED_BESIDE), max(gain, 0) / 2):
        return None
    chance = chance_of(apart)
    beside, after = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
    text = (
        f"the baseline takes {beside:.3g} ms a token beside the candidate, and {after:.3g} ms when that has ended, "
        f"over {len(pairs)} launches: it is slowed"
    )
    return (text, chance < SLOWED_ALPHA) if chance < SLOWED_BESIDE_ALPHA else None


def clock_slow(launches: Sequence[Launch]) -> tuple[str, bool] | None:
    """Say that a faster candidate's blocks take longer than its own clock says, and whether launches make that sure.

    None where they do not, or too few launches tell.
    """
    shares = [one.hidden_share for one in launches if one.hidden_share is not None]
    if len(shares) < LEAST_LAUNCHES or statistics.fmean(shares) <= HIDDEN:
        return None
    text = (
        f"{100 * statistics.fmean(shares):.2f} % more of a block of the candidate than of the baseline lie outside its "
        f"own clock, over {len(shares)} launches"
    )
    return text, chance_of(shares, HIDDEN) < CONTRADICTION_ALPHA


def works_early(launches: Sequence[Launch]) -> tuple[str, bool] | None:
    """Say that a faster candidate's whole runs take longer where the prompt is read, and whether launches make it sure.

    None where they do not, or too few launches tell.
    """
    runs = [
        (*one.whole_outside_s, one.whole_s[1])
        for one in launches
        if one.whole_outside_s is not None and one.whole_s is not None
    ]
    over = [
        (outside - (1 + OUTSIDE_PREFILL) * usual - OUTSIDE_RUN * inside) / (usual + inside)
        for usual, outside, inside in runs
    ]
    if len(runs) < LEAST_LAUNCHES or statistics.fmean(over) <= 0:
        return None
    usual, outside, inside = (1e3 * statistics.median(column) for column in zip(*runs, strict=True))
    text = (
        f"a whole run of the candidate takes {outside:.3g} ms a token outside its own clock, where the prompt is read, "
        f"and {inside:.3g} inside; one of the baseline {usual:.3g} outside, over {len(runs)} launches"
    )
    return text, chance_of(over) < CONTRADICTION_ALPHA


def parts_often(launches: Sequence[Launch]) -> str | None:
    """Say that the arms decode different texts in more launches than near ties explain."""
    ties = [one.parted_at for one in launches if one.parted_at is not None]
    if 2 * len(ties) <= len(launches) or (len(ties) <= MOST_TIES and ties.count(0) < 2):
        return None
    return f"the arms decode different greedy tokens in {len(ties)} of {len(launches)} launches: too many for near ties"


@dataclass(frozen=True, slots=True)
class Reservations:
    """What launches hold against their own blocks. ``slowed`` is that of ``baseline_slowed`` and the like, ``parts``
    that of ``parts_often``."""

    runs: WholeRuns | None
    slowed: tuple[str, bool] | None
    parts: str | None = None

    @property
    def contradiction(self) -> str | None:
        """What makes the blocks worthless, in words; None where nothing does."""
        if self.parts:
            return self.parts
        if self.runs is not None and self.runs.contradict:
            return f"{self.runs.text}: what short blocks show does not hold for decode"
        return self.slowed[0] if self.slowed is not None and self.slowed[1] else None

    @property
    def doubt(self) -> str | None:
        """Why a win or a loss that blocks show is not believed yet, in words; None where whole runs bear it out."""
        if self.runs is not None and self.runs.leave_open:
            return f"{self.runs.text}: whole runs do not bear it out yet"
        return f"{self.slowed[0]}, it seems" if self.slowed is not None else None


def reservations(estimated: Sequence[LaunchEstimate], launches: Sequence[Launch]) -> Reservations:
    """Hold blocks against whole runs, and a baseline that shares a process against itself alone."""
    gain = statistics.fmean(one.log_ratio for one in estimated) if estimated else 0.0
    # A slower arm may well have more to clear away.
    slow = (slowed_beside(launches, gain) or clock_slow(launches) or works_early(launches)) if gain > 0 else None
    return Reservations(whole_runs(estimated, launches), baseline_slowed(launches) or slow, parts_often(launches))


def _borne_out(judged: Judgement, against: Reservations) -> Judgement:
    if reason := against.contradiction:
        return replace(invalid(reason), launches=judged.launches, measured_s=judged.measured_s)
    doubtful = judged.verdict.is_claim or (judged.verdict.decided and against.slowed is not None)
    if doubtful and (reason := against.doubt):
        return replace(judged, verdict=Verdict.INCONCLUSIVE, reason=reason)
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


@lru_cache(maxsize=512)  # of some 12 kB each
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
