"""From launches to a verdict, at any look, the same every time.

Opinion: two intervals must agree before a duel stops. The plain 95 % interval is reported; the repeated
one (Jennison & Turnbull 1989), which pays for having looked after every launch, decides. Nothing here reads a
clock, a file or a random number, so a recorded duel can be judged again and gives the same answer.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gemma3n_perf.stats import messages as words
from gemma3n_perf.stats.bounds import half_widths, room
from gemma3n_perf.stats.detectable import LAST_LOOK_SHARE, launches_for, smallest_detectable
from gemma3n_perf.stats.estimates import LaunchEstimate, relative_change
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.policy import MARGIN, RARE, Policy
from gemma3n_perf.stats.sequential import tail_probabilities
from gemma3n_perf.stats.spread import NoiseFloor, prior_conflicts, serial_inflation
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict, claims, closes, not_measured


@dataclass(frozen=True, slots=True)
class Duel:
    """What one workload's duel measured so far, and whether it may go on. Seconds of measuring."""

    launches: tuple[LaunchEstimate, ...]
    budget_s: float
    budget_spent: bool = False


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
    Returns ``inconclusive`` while more launches are wanted, too: see ``should_stop``.
    """
    budget = policy.budget_s if budget_s is None else budget_s
    if not launches:
        return not_measured("no launch was measured")
    values = [launch.log_ratio for launch in launches]
    n, measured = len(values), sum(launch.seconds for launch in launches)
    status, prior = _noise(noise, values, policy, today)
    floor = relative_change(noise.effect) if noise else None
    base = Judgement(
        Verdict.INCONCLUSIVE,
        "",
        effect=relative_change(float(np.mean(values))),
        level=1.0 - policy.alpha,
        threshold=max(policy.minimum_effect, floor or 0.0),
        margin=policy.margin,
        launches=n,
        measured_s=measured,
        noise=status,
        noise_floor=floor,
    )
    if n < policy.min_launches:
        return replace(base, reason=words.too_few(n, policy.min_launches, budget_spent, measured))
    return _look(base, launches, values, policy, prior, budget, budget_spent)


def should_stop(judgement: Judgement, *, budget_spent: bool = False) -> bool:
    """Whether to stop measuring: something was shown, or the budget is spent."""
    return budget_spent or judgement.verdict is not Verdict.INCONCLUSIVE


def judge_many(
    duels: Mapping[str, Duel], policy: Policy, *, noise: NoiseFloor | None = None, today: dt.date | None = None
) -> Mapping[str, Judgement]:
    """Judge the duels of several workloads as one family with Holm's procedure; ``policy.alpha`` is the family's."""

    def one(name: str, alpha: float) -> Judgement:
        duel = duels[name]
        return judge(
            duel.launches,
            replace(policy, alpha=alpha),
            budget_s=duel.budget_s,
            noise=noise,
            today=today,
            budget_spent=duel.budget_spent,
        )

    return step_down(list(duels), policy.alpha, one, claims, closes)


def _look(
    base: Judgement,
    launches: Sequence[LaunchEstimate],
    values: Sequence[float],
    policy: Policy,
    prior: NoiseFloor | None,
    budget_s: float,
    budget_spent: bool,
) -> Judgement:
    n, threshold, margin = len(values), base.threshold or policy.minimum_effect, policy.margin
    mean, own = math.fsum(values) / n, float(np.var(values, ddof=1))
    inflation, correlation = serial_inflation(values)
    ses = [launch.se for launch in launches if launch.se is not None]
    tails = look_tails(launches, policy, budget_s, budget_spent)
    widths = half_widths(
        own,
        n,
        tail=tails[-1],
        alpha=policy.alpha,
        inflation=inflation,
        within=float(np.mean(np.square(ses))) if len(ses) == n else 0.0,
        prior=prior,
        prior_weight=policy.prior_weight,
    )
    plain, half, sd = float(widths.plain), float(widths.repeated), float(widths.sd)
    low, high = relative_change(mean - half), relative_change(mean + half)
    plain_low, plain_high = relative_change(mean - plain), relative_change(mean + plain)
    verdict = decide(low, high, threshold, margin, base.noise_floor or 0.0)
    unsaid = False
    spare = next((i for i, tail in enumerate(reversed(tails)) if tail > 0), 0)
    if spare:
        # Launches beyond the budget, which a second session may be owed, have no error left to spend: what the last
        # look that had some showed still stands, where they do not speak against it.
        last = _look(base, launches[:-spare], values[:-spare], policy, prior, budget_s, budget_spent=False)
        low = -math.inf if last.bound_low is None else min(last.bound_low, plain_low)
        high = math.inf if last.bound_high is None else max(last.bound_high, plain_high)
        same = decide(plain_low, plain_high, threshold, margin, base.noise_floor or 0.0) is last.verdict
        verdict = last.verdict if same else Verdict.INCONCLUSIVE
        unsaid = last.verdict.decided and not same
    cautions = words.cautions(base, float(correlation) if inflation > 1 else None)
    if unsaid:
        cautions = (*cautions, words.UNSAID)
    if verdict in (Verdict.WIN, Verdict.LOSS) and not _sessions_agree(launches):
        verdict = Verdict.INCONCLUSIVE
        cautions = (*cautions, words.SESSIONS_DISAGREE)
    if verdict is Verdict.NO_CHANGE and policy.suspicious and not _clears(plain_low, plain_high):
        verdict = Verdict.INCONCLUSIVE
    left = _room(launches, policy) if verdict is Verdict.NO_CHANGE else None
    if left is not None:
        verdict = Verdict.INCONCLUSIVE
        cautions = (*cautions, words.rare(left))
    # An undecided duel whose plain interval alone would decide reports the one that did not.
    as_plain = (
        verdict.decided
        or not math.isfinite(low)
        or not decide(plain_low, plain_high, threshold, margin, base.noise_floor or 0.0).decided
    )
    per_launch = base.measured_s / n
    total = max(n, int(budget_s / per_launch)) if per_launch > 0 else n
    seen = _Sensitivity(math.log1p(threshold), sd, policy)
    result = replace(
        base,
        verdict=verdict,
        low=plain_low if as_plain else low,
        high=plain_high if as_plain else high,
        bound_low=low if math.isfinite(low) else None,
        bound_high=high if math.isfinite(high) else None,
        launch_sd=math.sqrt(own),
        detectable=seen.detectable(n),
        detectable_at_budget=seen.detectable(total),
        needed_s=None if verdict.decided else seen.needed_s(mean, margin, per_launch),
        cautions=cautions,
    )
    return replace(result, reason=words.reason(result, policy.power, budget_spent or base.measured_s >= budget_s))


def look_tails(
    launches: Sequence[LaunchEstimate], policy: Policy, budget_s: float, budget_spent: bool
) -> tuple[float, ...]:
    """Two-sided nominal tail of every look so far, the last one being now."""
    used, fractions = 0.0, []
    for launch in launches:
        used += launch.seconds
        fractions.append(min(used / budget_s, 1.0))
    if budget_spent:
        fractions[-1] = 1.0
    first = policy.min_launches
    return tail_probabilities(range(first, len(launches) + 1), fractions[first - 1 :], policy.alpha, policy.rho)


def decide(low: float, high: float, threshold: float, margin: float, noise_floor: float = 0.0) -> Verdict:
    """The verdict of one interval of effects. No-change cannot be shown where the noise floor exceeds the margin."""
    if low > threshold:
        return Verdict.WIN
    if high < -threshold:
        return Verdict.LOSS
    if low > -margin and high < margin and noise_floor <= margin:
        return Verdict.NO_CHANGE
    return Verdict.INCONCLUSIVE


def _room(launches: Sequence[LaunchEstimate], policy: Policy) -> float | None:
    """The effect (a fraction) that whole times leave room for, where it is too much for no-change; else None.

    An arm that is slow now and then is slower, and typical tokens do not show it.
    """
    wholes = [one.whole for one in launches if one.whole is not None]
    if len(wholes) < len(launches):
        return None
    found = float(room(np.array(wholes), alpha=policy.alpha, margin=policy.margin, most=RARE))
    return None if math.isnan(found) else found


def _clears(low: float, high: float) -> bool:
    """Whether an interval clears of a suspicion: it holds zero, or nothing that counts."""
    return low <= 0.0 <= high or max(-low, high) < MARGIN


def _noise(
    noise: NoiseFloor | None, values: Sequence[float], policy: Policy, today: dt.date | None
) -> tuple[NoiseStatus, NoiseFloor | None]:
    """Whether the calibrated spread may steady this duel; its floor raises the threshold in any case."""
    if noise is None:
        return NoiseStatus.MISSING, None
    if today is not None and (today - noise.measured_on).days > policy.stale_after_days:
        return NoiseStatus.STALE, None
    if len(values) >= 2 and bool(prior_conflicts(np.asarray(np.var(values, ddof=1)), len(values), noise)):
        return NoiseStatus.CONTRADICTED, None
    return NoiseStatus.USED, noise


def _sessions_agree(launches: Sequence[LaunchEstimate]) -> bool:
    sessions: dict[int, list[float]] = {}
    for launch in launches:
        sessions.setdefault(launch.session, []).append(launch.log_ratio)
    return len({math.copysign(1.0, math.fsum(values)) for values in sessions.values()}) == 1


@dataclass(frozen=True, slots=True)
class _Sensitivity:
    """What launches of spread ``sd`` show beyond ``threshold`` (log units) at the last look."""

    threshold: float
    sd: float
    policy: Policy

    def detectable(self, launches: int) -> float | None:
        """Smallest effect (fraction) shown with the policy's power."""
        found = smallest_detectable(
            threshold=self.threshold,
            sd=self.sd,
            launches=launches,
            tail=LAST_LOOK_SHARE * self.policy.alpha,
            at_power=self.policy.power,
        )
        return None if found is None else relative_change(found)

    def needed_s(self, log_ratio: float, margin: float, launch_s: float) -> float | None:
        """Measuring seconds after which an effect of the size seen would be shown, as a change or as none."""
        size, inside = abs(log_ratio), math.log1p(margin)
        change = self._launches(size, self.threshold) if size > self.threshold else None
        same = self._launches(inside, size) if size < inside else None
        counts = [count for count in (change, same) if count is not None]
        return min(counts) * launch_s if counts else None

    def _launches(self, effect: float, threshold: float) -> int | None:
        tail = LAST_LOOK_SHARE * self.policy.alpha
        return launches_for(effect, threshold=threshold, sd=self.sd, tail=tail, at_power=self.policy.power)
