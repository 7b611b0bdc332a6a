"""The largest win a fusion could have here, and whether that justifies one: pure functions over a profile's figures.

Opinion: an upper bound is not a promise. "Yes" takes a win that is shown even at the pessimistic end of every interval,
lies on the critical path, and that no setting recovers for nothing; "no" takes its absence shown as well; what lies
between is "unknown", with what would settle it. docs/profile-method.md says it in prose.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gemma3n_perf.profile.types import Estimate, Split, WorkloadProfile
from gemma3n_perf.profile.wins import BY_DEVICE, BY_HOST, Range, Summary, Tried, Win, wins
from gemma3n_perf.stats.verdicts import Verdict

WORTH = 0.05
"""Throughput that a fusion must be able to add. Less does not pay for a kernel that must follow two libraries."""

YES, NO, UNKNOWN = "yes", "no", "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer: ``justified`` yes, no or unknown, why in one sentence, and the wins it rests on."""

    justified: str
    reason: str
    wins: tuple[Win, ...]
    knob: Tried | None
    settles: str | None = None


def summarise(profile: WorkloadProfile, fusions: Sequence[Tried] = ()) -> Summary:
    """Take from a profile what the rule looks at."""
    split, floor, trace, graph = profile.split, profile.floor, profile.trace, profile.histogram
    nodes = graph.nodes if graph else 0
    stream = None
    if floor:
        rate = floor.gemv_bandwidth
        stream = Estimate(
            floor.streamed_bytes / rate.value, floor.streamed_bytes / rate.high, floor.streamed_bytes / rate.low,
            rate.rounds,
        )  # fmt: skip
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
        stream_s=stream,
        views=graph.groups["view"] / nodes if graph and nodes else 0.0,
        glue=graph.groups["glue"] / nodes if graph and nodes else 0.0,
        knobs=tuple(Tried(one.setting, one.low or 0.0, one.high or 0.0, "a duel of this profile") for one in wins),
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
    if found.tpot_s is None or found.exposed is None or found.bound is None:
        return Finding(UNKNOWN, "what is on the critical path was not measured", ways, knob, "--parts split")
    recovered = knob.low if knob else 0.0
    concrete = [one for one in ways if one.name in (BY_HOST, BY_DEVICE)]
    left = {one.name: _after(one.gain, recovered) for one in concrete}
    most = max((gain.high for gain in left.values()), default=None)
    tried = max((one.high for one in found.fusions), default=None)
    proven = max(found.fusions, key=lambda one: one.low, default=None)
    if proven is not None and proven.low > WORTH:
        return Finding(YES, f"{proven.name} was measured to win at least {_pc(proven.low)}", ways, knob)
    shown = max((one for one in concrete), key=lambda one: left[one.name].low, default=None)
    if shown is not None and left[shown.name].low > WORTH:
        beyond = f" beyond what {knob.name} gives" if knob else ""
        return Finding(
            YES,
            f"decode is {found.bound}: {shown.name} would win at least {_pc(left[shown.name].low)}{beyond}, "
            f"more than the {_pc(WORTH)} that a fusion must be worth",
            ways, knob,
        )  # fmt: skip
    if most is not None and most <= WORTH:
        return Finding(NO, _too_little(found, concrete, left, most, knob), ways, knob)
    if tried is not None and tried <= WORTH:
        return Finding(
            NO,
            f"decode is {found.bound} and the fusions measured here win at most {_pc(tried)}, less than {_pc(WORTH)}"
            + (f"; {knob.name} gives {_pc(knob.low)} or more for nothing" if knob else ""),
            ways, knob,
        )  # fmt: skip
    if most is None:
        return Finding(UNKNOWN, "neither a device time nor a floor was measured", ways, knob, "--parts floor,trace")
    return Finding(
        UNKNOWN,
        f"decode is {found.bound}: fewer operations could win anything up to {_pc(most)}, and nothing measured here "
        "says how much of it",
        ways, knob,
        "put one fusion to a duel" if found.swept else "--parts sweep, then a duel of one fusion",
    )  # fmt: skip


def _after(gain: Range, recovered: float) -> Range:
    """What is left of a gain once a knob has given its own: both fight for the same gaps."""
    return Range(*((1 + value) / (1 + recovered) - 1 for value in (gain.value, gain.low, gain.high)))


def _too_little(found: Summary, ways: Sequence[Win], left: Mapping[str, Range], most: float, knob: Tried | None) -> str:
    largest = max(ways, key=lambda one: left[one.name].high)
    if knob is not None and largest.gain.high > WORTH:
        return (
            f"{knob.name} gives {_pc(knob.low)} or more for nothing, and {largest.name} could win "
            f"{_pc(largest.gain.high)} at most, so {_pc(max(most, 0.0))} is left: set it and profile again"
        )
    return f"decode is {found.bound} and {largest.name} could win {_pc(max(most, 0.0))} at most, less than {_pc(WORTH)}"


def _pc(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
