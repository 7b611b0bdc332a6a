"""From launches to a verdict, at any look, the same every time.

Opinion: two intervals must agree before a duel stops. The plain 95 % interval is reported; the repeated
one (Jennison & Turnbull 1989), which pays for looking after every launch and is of 98 %, decides. Nothing here reads a
clock, a file or a random number, so a recorded duel can be judged again and gives the same result.

A look has three steps: the intervals (``_intervals``), the reasons to withhold what they show (``_withheld``), the
verdict (``_look``).
"""

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from gemma3n_perf.stats import messages
from gemma3n_perf.stats.detectable import LAST_LOOK_SHARE, Sensitivity
from gemma3n_perf.stats.estimates import LaunchEstimate, by_session, relative_change
from gemma3n_perf.stats.policy import MARGIN, RARE, Policy
from gemma3n_perf.stats.sequential import tail_probabilities
from gemma3n_perf.stats.spread import (
    DEPENDENT,
    PERHAPS_DEPENDENT,
    NoiseFloor,
    half_widths,
    halves_differ,
    prior_conflicts,
    serial_inflation,
    unexcluded,
)
from gemma3n_perf.stats.verdicts import Caution, Judgement, NoiseStatus, Verdict, decide, not_measured


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a duel is judged by.

    ``threshold``: the larger of minimum effect and noise floor, a fraction.
    ``margin``: what bounds no-change, a fraction; 0 where the noise floor is larger, so that no interval lies within.
    ``prior``: the calibrated spread that steadies the launches' own, where there is one to be relied on.
    ``dependence``: how easily launches are taken for dependent ones.
    """

    policy: Policy
    threshold: float
    margin: float
    prior: NoiseFloor | None
    dependence: tuple[float, float] = DEPENDENT

    def decide(self, low: float, high: float) -> Verdict:
        return decide(low, high, threshold=self.threshold, margin=self.margin)

    @property
    def same(self) -> "_Rules":
        """The rules of no-change."""
        return replace(self, policy=self.policy.of_no_change, dependence=PERHAPS_DEPENDENT)


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Both intervals of a look, as effects: the plain one and, between ``low`` and ``high``, the one that decides.

    ``sd``: the launch spread that decisions rest on, log units.
    ``correlation``: of successive launches, where it widened the intervals.
    ``level``: confidence of the plain one.
    """

    plain_low: float
    plain_high: float
    low: float
    high: float
    sd: float
    correlation: float | None
    level: float


@dataclass(frozen=True, slots=True)
class _Look:
    """What a look at launches shows: a verdict, and ``withheld``, the reasons not to say what the intervals show."""

    intervals: _Intervals
    verdict: Verdict
    withheld: tuple[Caution, ...]


def judge(
    launches: Sequence[LaunchEstimate],
    policy: Policy,
    *,
    budget_s: float | None = None,
    noise: NoiseFloor | None = None,
    today: dt.date | None = None,
    budget_spent: bool = False,
) -> Judgement:
    """Judge the launches of one duel, in the order they were measured.

    The looks taken so far are rebuilt from the launches: one after each, from ``policy.min_launches``
    on, at the share of ``budget_s`` (default: the policy's) used by then. The budget has to be fixed
    before the first launch: extending it later spends the same error twice. ``today`` decides whether
    ``noise`` is stale (None: never). ``budget_spent`` makes this the last look, which spends the rest.
    Returns ``inconclusive`` while more launches are needed, too: see ``should_stop``.
    """
    budget = policy.budget_s if budget_s is None else budget_s
    if not launches:
        return not_measured("no launch was measured")
    n, measured = len(launches), sum(launch.seconds for launch in launches)
    values = [launch.log_ratio for launch in launches]
    status = _noise_status(noise, values, policy, today)
    floor = relative_change(noise.effect) if noise else 0.0
    threshold = max(policy.minimum_effect, floor)
    result = Judgement(
        Verdict.INCONCLUSIVE,
        "",
        effect=relative_change(float(np.mean(values))),
        level=1.0 - policy.reported / policy.shares,
        threshold=threshold,
        margin=policy.margin,
        launches=n,
        measured_s=measured,
        noise=status,
        noise_floor=floor if noise else None,
    )
    if n < policy.min_launches:
        return replace(result, reason=messages.too_few(n, policy.min_launches, budget_spent, measured))
    prior = noise if status is NoiseStatus.USED else None
    rules = _Rules(policy, threshold, policy.margin if floor <= policy.margin else 0.0, prior)
    look = _last_look(launches, _spent(launches, budget, budget_spent), rules)
    cautions = messages.noise_cautions(status, floor, policy.margin)
    if look.intervals.correlation is not None:
        cautions.append(messages.dependent(look.intervals.correlation))
    sensitivity = Sensitivity(look.intervals.sd, LAST_LOOK_SHARE * policy.alpha / policy.shares, policy.power)
    beyond, launch_s = math.log1p(threshold), measured / n
    needed = sensitivity.launches_to_decide(
        abs(math.fsum(values) / n), threshold=beyond, margin=math.log1p(policy.margin)
    )
    at_budget = max(n, int(budget / launch_s)) if launch_s > 0 else n
    result = replace(
        result,
        verdict=look.verdict,
        level=look.intervals.level,
        low=look.intervals.plain_low,
        high=look.intervals.plain_high,
        bound_low=look.intervals.low,
        bound_high=look.intervals.high if math.isfinite(look.intervals.high) else None,
        launch_sd=math.sqrt(float(np.var(values, ddof=1))),
        detectable=relative_change(sensitivity.effect(n, threshold=beyond)),
        detectable_at_budget=relative_change(sensitivity.effect(at_budget, threshold=beyond)),
        needed_s=None if look.verdict.decided or needed is None else needed * launch_s,
        cautions=(*cautions, *look.withheld),
    )
    return replace(result, reason=messages.reason(result, policy, budget_spent or measured >= budget))


def judge_session(launches: Sequence[LaunchEstimate], policy: Policy, noise: NoiseFloor | None = None) -> Judgement:
    """Judge one session by itself, at one look after its last launch.

    It decides nothing but whether a win repeats, so its error is that of a reported interval, all on that side.
    """
    if len(launches) < 2:
        effect = relative_change(launches[0].log_ratio) if launches else None
        return Judgement(Verdict.INCONCLUSIVE, "fewer than 2 launches", effect=effect, launches=len(launches))
    error = 2 * policy.reported
    one_look = replace(policy, min_launches=len(launches), alpha=error, reported=error, shares=1)
    return judge(launches, one_look, noise=noise, budget_spent=True)


def win_repeats(launches: Sequence[LaunchEstimate], policy: Policy, noise: NoiseFloor | None = None) -> bool:
    """Whether each session of a duel wins by itself."""
    return all(judge_session(own, policy, noise).verdict is Verdict.WIN for own in by_session(launches))


def should_stop(judgement: Judgement, *, budget_spent: bool = False) -> bool:
    """Whether to stop measuring: something was shown, or the budget is spent."""
    return budget_spent or judgement.verdict is not Verdict.INCONCLUSIVE


def _spent(launches: Sequence[LaunchEstimate], budget_s: float, budget_spent: bool) -> list[float]:
    """Share of the budget used after each launch."""
    fractions = [min(used / budget_s, 1.0) for used in accumulate(launch.seconds for launch in launches)]
    return [*fractions[:-1], 1.0] if budget_spent else fractions


def _last_look(launches: Sequence[LaunchEstimate], spent: Sequence[float], rules: _Rules) -> _Look:
    """Look at all launches, ``spent`` being the share of the budget used after each.

    Launches beyond the budget, which a second session may need, have no error left to spend: what the last look that
    had some showed still stands, unless the plain interval of all launches shows something else.
    """
    now = _look(launches, spent, rules)
    beyond = sum(share >= 1.0 for share in spent[rules.policy.min_launches - 1 :]) - 1
    if beyond < 1:
        return now
    last = _look(launches[:-beyond], spent[:-beyond], rules)
    plain_low, plain_high = now.intervals.plain_low, now.intervals.plain_high
    low, high = min(last.intervals.low, plain_low), max(last.intervals.high, plain_high)
    intervals = replace(now.intervals, low=low, high=high)
    if last.verdict.decided and rules.decide(plain_low, plain_high) is not last.verdict:
        return _Look(intervals, Verdict.INCONCLUSIVE, (messages.UNSAID,))
    return _said(last.verdict, launches, intervals, rules)


def _look(launches: Sequence[LaunchEstimate], spent: Sequence[float], rules: _Rules) -> _Look:
    """Look at launches: for a change at this comparison's share of the error, for none of it at the whole."""
    intervals = _intervals(launches, spent, rules)
    shown = rules.decide(intervals.low, intervals.high)
    if not shown.is_claim:
        same = _intervals(launches, spent, rules.same)
        shown = Verdict.INCONCLUSIVE
        if rules.decide(same.low, same.high) is Verdict.NO_CHANGE:
            intervals, shown = replace(same, correlation=intervals.correlation), Verdict.NO_CHANGE
    return _said(shown, launches, intervals, rules)


def _said(shown: Verdict, launches: Sequence[LaunchEstimate], intervals: _Intervals, rules: _Rules) -> _Look:
    """Say what is ``shown``, or withhold it."""
    low, high = intervals.plain_low, intervals.plain_high
    # What looks like a small change is cleared by an interval that holds zero, or by one within the usual margin.
    if shown is Verdict.NO_CHANGE and rules.policy.suspicious and not low <= 0.0 <= high and max(-low, high) >= MARGIN:
        shown = Verdict.INCONCLUSIVE
    withheld = _withheld(shown, launches, rules.policy)
    return _Look(intervals, Verdict.INCONCLUSIVE if withheld else shown, withheld)


def _intervals(launches: Sequence[LaunchEstimate], spent: Sequence[float], rules: _Rules) -> _Intervals:
    """The intervals of launches at this look, the last of those after each launch from the first that may decide on."""
    policy, n = rules.policy, len(launches)
    first, reported = policy.min_launches, policy.reported / policy.shares
    tails = tail_probabilities(range(first, n + 1), spent[first - 1 :], policy.alpha / policy.shares, policy.rho)
    values = [launch.log_ratio for launch in launches]
    mean, own = math.fsum(values) / n, float(np.var(values, ddof=1))
    inflation, correlation = serial_inflation(values, rules.dependence)
    ses = [launch.se for launch in launches if launch.se is not None]
    widths = half_widths(
        own,
        n,
        tail=tails[-1],
        reported=reported,
        inflation=inflation,
        within=float(np.median(np.square(ses))) if len(ses) == n else 0.0,
        prior=rules.prior,
        prior_weight=policy.prior_weight,
        sessions=policy.session_sd**2 * sum((len(own) / n) ** 2 for own in by_session(launches)),
    )
    plain, half = float(widths.plain), float(widths.repeated)
    return _Intervals(
        plain_low=relative_change(mean - plain),
        plain_high=relative_change(mean + plain),
        low=relative_change(mean - half),
        high=relative_change(mean + half),
        sd=float(widths.sd),
        correlation=float(correlation) if inflation > 1 else None,
        level=1.0 - reported,
    )


def _withheld(shown: Verdict, launches: Sequence[LaunchEstimate], policy: Policy) -> tuple[Caution, ...]:
    """Return the reasons not to say what an interval shows."""
    if shown.is_claim and not _sessions_agree(launches):
        return (messages.SESSIONS_DISAGREE,)
    if shown.decided and bool(halves_differ([one.log_ratio for one in launches])):
        return (messages.HALVES_DISAGREE,)
    if shown is not Verdict.NO_CHANGE:
        return ()
    wholes = [one.whole for one in launches if one.whole is not None]
    if len(wholes) < len(launches):
        return ()
    # An arm that is slow now and then is slower, and typical tokens do not show it.
    effect = float(unexcluded(np.array(wholes), alpha=policy.reported, margin=policy.margin, most=RARE))
    return () if math.isnan(effect) else (messages.rare(effect),)


def _sessions_agree(launches: Sequence[LaunchEstimate]) -> bool:
    sums = [math.fsum(one.log_ratio for one in own) for own in by_session(launches)]
    return len({math.copysign(1.0, each) for each in sums}) == 1


def _noise_status(
    noise: NoiseFloor | None, values: Sequence[float], policy: Policy, today: dt.date | None
) -> NoiseStatus:
    """Whether the calibrated spread may steady this duel; its floor raises the threshold in any case."""
    if noise is None:
        return NoiseStatus.MISSING
    if today is not None and (today - noise.measured_on).days > policy.stale_after_days:
        return NoiseStatus.STALE
    if len(values) >= 2 and bool(prior_conflicts(np.asarray(np.var(values, ddof=1)), len(values), noise)):
        return NoiseStatus.CONTRADICTED
    return NoiseStatus.USED
