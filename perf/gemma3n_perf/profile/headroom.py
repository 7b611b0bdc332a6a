"""The largest win a fusion could have here, and whether that justifies one: pure functions over a profile's figures.

Opinion: an upper bound is not a promise. "Yes" takes a win that is shown even at the pessimistic end of every interval,
lies on the critical path, and that no setting recovers for nothing; "no" takes its absence shown as well; what lies
between is "unknown", with what would settle it. docs/profile-method.md says it in prose.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma3n_perf.profile.types import Split, WorkloadProfile
from gemma3n_perf.profile.wins import BY_DEVICE, BY_HOST, Range, Summary, Tried, Win, wins
from gemma3n_perf.report.units import percent
from gemma3n_perf.stats.verdicts import Verdict

WORTH = 0.05
"""Throughput that a fusion must be able to add. Less does not pay for a kernel that must follow two libraries."""

YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What the rule says: ``justified`` yes, no or unknown, why in one sentence, and the wins it rests on.

    ``knob`` is the best setting that won a duel; ``settles`` what to measure next where it is unknown.
    """

    justified: str
    reason: str
    wins: tuple[Win, ...]
    knob: Tried | None
    settles: str | None = None


def summarise(profile: WorkloadProfile, fusions: Sequence[Tried] = ()) -> Summary:
    """Take from a profile what the rule looks at."""
    split, floor, trace, graph = profile.split, profile.floor, profile.trace, profile.histogram
    wins = [one for one in (profile.sweep.knobs if profile.sweep else ()) if one.verdict == Verdict.WIN]
    return Summary(
        tpot_s=split.pipelined.tpot_s if split else None,
        host_s=split.host_s if split else None,
        exposed=split.exposed if split else None,
        bound=split.bound if split else None,
        build_s=split.pipelined.build_s if split else None,
        device_s=trace.busy_s if trace else None,
        device_most_s=_device_most(split) if split else None,
        chain_s=floor.chain_s if floor else None,
        stream_s=floor.stream_s if floor else None,
        views=graph.groups["view"] / graph.nodes if graph and graph.nodes else 0.0,
        glue=graph.groups["glue"] / graph.nodes if graph and graph.nodes else 0.0,
        knobs=tuple(Tried(one.setting, one.low or 0.0, one.high or 0.0) for one in wins),
        swept=profile.sweep is not None,
        fusions=tuple(fusions),
    )


def _device_most(split: Split) -> float:
    """In the synchronous loop the device works only between the start of a dispatch and the end of the wait."""
    sync = split.synchronous
    return min(sync.dispatch_s.high + sync.wait_s.high, split.pipelined.tpot_s.high)


def decide(found: Summary) -> Finding:
    """Say whether a fusion is justified: see docs/profile-method.md for the rule in prose."""
    ways = wins(found)
    knob = max(found.knobs, key=lambda one: one.low, default=None)

    def finding(justified: str, reason: str, settles: str | None = None) -> Finding:
        return Finding(justified, reason, ways, knob, settles)

    if found.tpot_s is None or found.exposed is None or found.bound is None:
        return finding(UNKNOWN, "what is on the critical path was not measured", "--parts split")
    proven = max(found.fusions, key=lambda one: one.low, default=None)
    if proven is not None and proven.low > WORTH:
        return finding(YES, f"{proven.name} was measured to win at least {_pc(proven.low)}")
    left = {one: _after(one.gain, knob) for one in ways if one.name in (BY_HOST, BY_DEVICE)}
    shown = max(left, key=lambda one: left[one].low, default=None)
    if shown is not None and left[shown].low > WORTH:
        beyond = f" beyond what {knob.name} gives" if knob else ""
        return finding(
            YES,
            f"decode is {found.bound}: {shown.name} would win at least {_pc(left[shown].low)}{beyond}, "
            f"more than the {_pc(WORTH)} that a fusion must be worth",
        )
    largest = max(left, key=lambda one: left[one].high, default=None)
    if largest is not None and left[largest].high <= WORTH:
        return finding(NO, _too_little(found, largest, left[largest].high, knob))
    tried = max((one.high for one in found.fusions), default=None)
    if tried is not None and tried <= WORTH:
        return finding(
            NO,
            f"decode is {found.bound} and the fusions measured here win at most {_pc(tried)}, less than {_pc(WORTH)}"
            + (f"; {knob.name} gives {_pc(knob.low)} or more for nothing" if knob else ""),
        )
    if largest is None:
        return finding(UNKNOWN, "neither a device time nor a floor was measured", "--parts floor,trace")
    return finding(
        UNKNOWN,
        f"decode is {found.bound}: fewer operations could win anything up to {_pc(left[largest].high)}, and nothing "
        "measured here says how much of it",
        "put one fusion to a duel" if found.swept else "--parts sweep, then a duel of one fusion",
    )


def _after(gain: Range, knob: Tried | None) -> Range:
    """What is left of a gain once a knob has given its own: both close the same gaps."""
    recovered = knob.low if knob else 0.0
    return Range(*((1 + value) / (1 + recovered) - 1 for value in (gain.value, gain.low, gain.high)))


def _too_little(found: Summary, largest: Win, left: float, knob: Tried | None) -> str:
    most = _pc(max(left, 0.0))
    if knob is not None and largest.gain.high > WORTH:
        return (
            f"{knob.name} gives {_pc(knob.low)} or more for nothing, and {largest.name} could win "
            f"{_pc(largest.gain.high)} at most, so {most} is left: set it and profile again"
        )
    return f"decode is {found.bound} and {largest.name} could win {most} at most, less than {_pc(WORTH)}"


def _pc(fraction: float) -> str:
    return percent(fraction, 1)
