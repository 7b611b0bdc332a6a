"""What prefills and memory of a duel amount to: a verdict on TTFT, and what a change of memory is worth.

TTFT decides neither when a duel stops nor what is said of decode. So it is a family of its own over the workloads, and
is looked at once, after the last launch, with all of its error (docs/method.md).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.report import units
from gemma3n_perf.stats.estimates import LaunchEstimate, estimate_launch
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict, invalid, not_measured

MARGIN = 0.03
"""An effect on TTFT within this of zero counts as none, unless the policy has a wider margin."""

GROWN = 0.01
"""A peak that is this much higher in every launch has risen; MLX frees a buffer now a little sooner, now later."""


def judge_first_tokens(launches: Mapping[str, Sequence[Launch]], policy: Policy) -> dict[str, Judgement]:
    """Judge the TTFT of all workloads as one family. An effect is of prefill's speed: -2 % takes 2 % longer."""
    estimates = {name: _estimates(own) for name, own in launches.items()}
    measured = [name for name, own in estimates.items() if own]

    def one(name: str, shares: int) -> Judgement:
        own = estimates[name]
        # A single look spends all of the error.
        rules = replace(
            policy, shares=shares, margin=max(policy.margin, MARGIN), min_launches=max(policy.min_launches, len(own))
        )
        judged = judge(own, rules, budget_spent=True)
        judged = replace(judged, needed_s=None, cautions=tuple(c for c in judged.cautions if "noise" not in c.code))
        if judged.verdict is Verdict.INCONCLUSIVE and judged.low is not None:
            shown = units.effect(judged.effect, judged.low, judged.high, 1)
            return replace(judged, reason=f"{shown} over {len(own)} launches shows neither a change nor its absence")
        return judged

    found = dict(step_down(measured, one)) if measured else {}
    return {name: found[name] if name in found else _untimed(own) for name, own in launches.items()}


def _estimates(launches: Sequence[Launch]) -> tuple[LaunchEstimate, ...]:
    return tuple(
        replace(_estimate(one.prefills.ttft_s), session=one.session)
        for one in launches
        if one.prefills is not None and one.prefills.ttft_s
    )


def _estimate(pairs: Sequence[tuple[float, float]]) -> LaunchEstimate:
    base, cand = zip(*pairs, strict=True)
    if len(pairs) == 1:
        return LaunchEstimate(math.log(base[0] / cand[0]), math.fsum(pairs[0]))
    return estimate_launch(base, cand, seconds=math.fsum((*base, *cand)))


def _untimed(launches: Sequence[Launch]) -> Judgement:
    reported = [one.prefills for one in launches if one.prefills is not None]
    if fault := next((one.fault for one in reported if one.fault), ""):
        return invalid(fault)
    if any(one.kv_bytes for one in reported):
        return not_measured("the machine was disturbed during every prefill")
    return not_measured("one of the arms is too old to time prefills" if launches else "no launch was measured")


def peak_ratio(launches: Sequence[Launch]) -> float | None:
    """Return the candidate's peak of memory to the baseline's, the median of launches; None where none reports it."""
    peaks = [one.prefills.peak_bytes for one in launches if one.prefills is not None]
    ratios = [both[1] / both[0] for both in peaks if both and all(both)]
    return median(ratios) if ratios else None


def memory_changes(launches: Sequence[Launch]) -> tuple[tuple[str, ...], tuple[Caution, ...]]:
    """Say what changed of peak memory and KV cache, as ``peak memory 4.88 GB -> 5.77 GB``; a rise is a caution too."""
    reported = [one.prefills for one in launches if one.prefills is not None]
    found: list[str] = []
    risen: list[str] = []
    for what, pairs, share in (
        ("peak memory", [one.peak_bytes for one in reported if one.peak_bytes], GROWN),
        ("KV cache", [one.kv_bytes for one in reported if one.kv_bytes], 0.0),
    ):
        signs = {(new > old * (1 + share)) - (new * (1 + share) < old) for old, new in pairs}
        if len(signs) == 1 and 0 not in signs:
            old, new = (median(column) for column in zip(*pairs, strict=True))
            text = f"{what} {units.size(old)} -> {units.size(new)} ({100 * (new / old - 1):+.1f} %)"
            found.append(text)
            risen += [text] if new > old else []
    remedy = "if that is intended, nothing; if not, look at the change that did it"
    return tuple(found), (Caution("memory-risen", "; ".join(risen), remedy),) if risen else ()
