"""From launches to a verdict, at any look, the same every time.

Opinion: two intervals must agree before a duel stops. The plain 95 % interval is reported; the repeated
one (Jennison & Turnbull 1989), which pays for looking after every launch, decides. Nothing here reads a
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
from gemma3n_perf.stats.estimates import LaunchEstimate, relative_change
from gemma3n_perf.stats.policy import MARGIN, RARE, Policy
from gemma3n_perf.stats.sequential import tail_probabilities
from gemma3n_perf.stats.spread import NoiseFloor, half_widths, prior_conflicts, serial_inflation, unexcluded
from gemma3n_perf.stats.verdicts import Caution, Judgement, NoiseStatus, Verdict, decide, not_measured


@dataclass(frozen=True, slots=True)
class _Rules:
    """What a duel is judged by.

    ``threshold``: the larger of minimum effect and noise floor, a fraction.
    ``margin``: what bounds no-change, a fraction; 0 where the noise floor is larger, so that no interval lies within.
    ``prior``: the calibrated spread that steadies the launches' own, where there is one to be relied on.
    """

    policy: Policy
    threshold: float
    margin: float
    prior: NoiseFloor | None

    def decide(self, low: float, high: float) -> Verdict:
        return decide(low, high, threshold=self.threshold, margin=self.margin)


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Both intervals of a look, as effects: the plain one and, between ``low`` and ``high``, the one that decides.

    ``sd``: the launch spread that decisions rest on, log units.
    ``correlation``: of successive launches, where it widened the intervals.
    """

    plain_low: float
    plain_high: float
    low: float
    high: float
    sd: float
    correlation: float | None


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
        level=1.0 - policy.alpha,
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
    look = _last_look(launches, _tails(launches, policy, budget, budget_spent), rules)
    low, high = _reported(look, rules)
    cautions = messages.noise_cautions(status, floor, policy.margin)
    if look.intervals.correlation is not None:
        cautions.append(messages.dependent(look.intervals.correlation))
    sensitivity = Sensitivity(look.intervals.sd, LAST_LOOK_SHARE * policy.alpha, policy.power)
    beyond, launch_s = math.log1p(threshold), measured / n
    needed = sensitivity.launches_to_decide(
        abs(math.fsum(values) / n), threshold=beyond, margin=math.log1p(policy.margin)
    )
    at_budget = max(n, int(budget / launch_s)) if launch_s > 0 else n
    result = replace(
        result,
        verdict=look.verdict,
        low=low,
        high=high,
        bound_low=look.intervals.low,
        bound_high=look.intervals.high if math.isfinite(look.intervals.high) else None,
        launch_sd=math.sqrt(float(np.var(values, ddof=1))),
        detectable=relative_change(sensitivity.effect(n, threshold=beyond)),
        detectable_at_budget=relative_change(sensitivity.effect(at_budget, threshold=beyond)),
        needed_s=None if look.verdict.decided or needed is None else needed * launch_s,
        cautions=(*cautions, *look.withheld),
    )
    return replace(result, reason=messages.reason(result, policy.power, budget_spent or measured >= budget))


def should_stop(judgement: Judgement, *, budget_spent: bool = False) -> bool:
    """Whether to stop measuring: something was shown, or the budget is spent."""
    return budget_spent or judgement.verdict is not Verdict.INCONCLUSIVE


def _tails(
    launches: Sequence[LaunchEstimate], policy: Policy, budget_s: float, budget_spent: bool
) -> tuple[float, ...]:
    """Two-sided nominal tail of every look so far, the last one being now."""
    fractions = [min(used / budget_s, 1.0) for used in accumulate(launch.seconds for launch in launches)]
    if budget_spent:
        fractions[-1] = 1.0
    first = policy.min_launches
    return tail_probabilities(range(first, len(launches) + 1), fractions[first - 1 :], policy.alpha, policy.rho)


def _last_look(launches: Sequence[LaunchEstimate], tails: Sequence[float], rules: _Rules) -> _Look:
    """Look at all launches. ``tails`` are those of every look so far.

    Launches beyond the budget, which a second session may need, have no error left to spend: what the last look that
    had some showed still stands, unless the plain interval of all launches shows something else.
    """
    now = _look(launches, tails[-1], rules)
    beyond = next((count for count, tail in enumerate(reversed(tails)) if tail > 0), 0)
    if not beyond:
        return now
    last = _look(launches[:-beyond], tails[-1 - beyond], rules)
    plain_low, plain_high = now.intervals.plain_low, now.intervals.plain_high
    low, high = min(last.intervals.low, plain_low), max(last.intervals.high, plain_high)
    intervals = replace(now.intervals, low=low, high=high)
    if last.verdict.decided and rules.decide(plain_low, plain_high) is not last.verdict:
        return _Look(intervals, Verdict.INCONCLUSIVE, (messages.UNSAID,))
    return _said(last.verdict, launches, intervals, rules)


def _look(launches: Sequence[LaunchEstimate], tail: float, rules: _Rules) -> _Look:
    """Look at launches with the error ``tail``."""
    intervals = _intervals(launches, tail, rules)
    return _said(rules.decide(intervals.low, intervals.high), launches, intervals, rules)


def _said(shown: Verdict, launches: Sequence[LaunchEstimate], intervals: _Intervals, rules: _Rules) -> _Look:
    """Say what is ``shown``, or withhold it."""
    low, high = intervals.plain_low, intervals.plain_high
    # What looks like a small change is cleared by an interval that holds zero, or by one within the usual margin.
    if shown is Verdict.NO_CHANGE and rules.policy.suspicious and not low <= 0.0 <= high and max(-low, high) >= MARGIN:
        shown = Verdict.INCONCLUSIVE
    withheld = _withheld(shown, launches, rules.policy)
    return _Look(intervals, Verdict.INCONCLUSIVE if withheld else shown, withheld)


def _intervals(launches: Sequence[LaunchEstimate], tail: float, rules: _Rules) -> _Intervals:
    """The intervals of launches, at a look with the error ``tail``."""
    values, n = [launch.log_ratio for launch in launches], len(launches)
    mean, own = math.fsum(values) / n, float(np.var(values, ddof=1))
    inflation, correlation = serial_inflation(values)
    ses = [launch.se for launch in launches if launch.se is not None]
    widths = half_widths(
        own,
        n,
        tail=tail,
        alpha=rules.policy.alpha,
        inflation=inflation,
        within=float(np.mean(np.square(ses))) if len(ses) == n else 0.0,
        prior=rules.prior,
        prior_weight=rules.policy.prior_weight,
    )
    plain, half = float(widths.plain), float(widths.repeated)
    return _Intervals(
        plain_low=relative_change(mean - plain),
        plain_high=relative_change(mean + plain),
        low=relative_change(mean - half),
        high=relative_change(mean + half),
        sd=float(widths.sd),
        correlation=float(correlation) if inflation > 1 else None,
    )


def _withheld(shown: Verdict, launches: Sequence[LaunchEstimate], policy: Policy) -> tuple[Caution, ...]:
    """Return the reasons not to say what an interval shows."""
    if shown.is_claim and not _sessions_agree(launches):
        return (messages.SESSIONS_DISAGREE,)
    if shown is not Verdict.NO_CHANGE:
        return ()
    wholes = [one.whole for one in launches if one.whole is not None]
    if len(wholes) < len(launches):
        return ()
    # An arm that is slow now and then is slower, and typical tokens do not show it.
    effect = float(unexcluded(np.array(wholes), alpha=policy.alpha, margin=policy.margin, most=RARE))
    return () if math.isnan(effect) else (messages.rare(effect),)


def _sessions_agree(launches: Sequence[LaunchEstimate]) -> bool:
    sessions: dict[int, list[float]] = {}
    for launch in launches:
        sessions.setdefault(launch.session, []).append(launch.log_ratio)
    return len({math.copysign(1.0, math.fsum(values)) for values in sessions.values()}) == 1


def _reported(look: _Look, rules: _Rules) -> tuple[float, float]:
    """The plain interval, or the one that decides where a look decided nothing and the plain one alone would."""
    found = look.intervals
    if look.verdict.decided or not rules.decide(found.plain_low, found.plain_high).decided:
        return found.plain_low, found.plain_high
    return found.low, found.high


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
