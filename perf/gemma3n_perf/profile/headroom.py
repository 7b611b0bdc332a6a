"""The largest win a fusion could have here, and whether that justifies one: pure functions over a profile's figures.

Opinion: an upper bound is not a promise. "Yes" takes a win that is shown even at the pessimistic end of every interval,
lies on the critical path, and that no setting recovers for nothing; "no" takes its absence shown as well; what lies
between is "unknown", with what would settle it. docs/profile-method.md says it in prose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gemma3n_perf.profile.types import DEVICE_BOUND, HOST_BOUND, Estimate, WorkloadProfile
from gemma3n_perf.report.units import percent
from gemma3n_perf.stats.verdicts import Verdict

WORTH = 0.05
"""Throughput that a fusion must be able to add. Less does not pay for a kernel that must follow two libraries."""

YES, NO, UNKNOWN = "yes", "no", "unknown"
BY_HOST, BY_DEVICE = "taking views and glue off the host", "running no glue on the device"
_pc = partial(percent, digits=1)


@dataclass(frozen=True, slots=True)
class Win:
    """One way to win: the gain of throughput as a fraction, at least, middle and at most, and what that assumes."""

    name: str
    low: float
    value: float
    high: float
    assumption: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A fusion or knob that was measured here: the interval of its effect on throughput, as fractions."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What the rule looks at. Seconds per token; None was not measured.

    ``host_s`` is building (``build_s``), sampling and dispatching, ``exposed`` the share of host time that the time per
    token shows; ``device_s`` the device's busy time, with ``device_most_s`` as its bound where only that is known;
    ``chain_s`` the products alone, ``stream_s`` their bytes at the bandwidth of one large product. ``glue`` and
    ``views`` are shares of the graph's nodes.
    """

    tpot_s: Estimate | None
    host_s: Estimate | None
    exposed: Estimate | None
    bound: str | None
    build_s: Estimate | None = None
    device_s: Estimate | None = None
    device_most_s: float | None = None
    chain_s: Estimate | None = None
    stream_s: Estimate | None = None
    views: float = 0.0
    glue: float = 0.0
    knobs: tuple[Tried, ...] = ()
    swept: bool = False
    fusions: tuple[Tried, ...] = ()

    @property
    def launched(self) -> float:
        """The share of glue among the nodes that are no views."""
        return self.glue / (1 - self.views) if self.views < 1 else 0.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The rule's answer (yes, no or unknown), why in one sentence, from which wins, and what ``settles`` an unknown."""

    justified: str
    reason: str
    wins: tuple[Win, ...]
    settles: str | None = None


def summarise(profile: WorkloadProfile, fusions: Sequence[Tried] = ()) -> Summary:
    """Take from a profile what the rule looks at."""
    split, floor, trace, graph = profile.split, profile.floor, profile.trace, profile.histogram
    knobs = [one for one in (profile.sweep.knobs if profile.sweep else ()) if one.verdict == Verdict.WIN]
    most = None
    if split:
        # In the synchronous loop the device works only between the start of a dispatch and the end of the wait.
        sync = split.synchronous
        most = min(sync.dispatch_s.high + sync.wait_s.high, split.pipelined.tpot_s.high)
    return Summary(
        tpot_s=split.pipelined.tpot_s if split else None,
        host_s=split.host_s if split else None,
        exposed=split.exposed if split else None,
        bound=split.bound if split else None,
        build_s=split.pipelined.build_s if split else None,
        device_s=trace.busy_s if trace else None,
        device_most_s=most,
        chain_s=floor.chain_s if floor else None,
        stream_s=floor.stream_s if floor else None,
        views=graph.groups["view"] / graph.nodes if graph and graph.nodes else 0.0,
        glue=graph.groups["glue"] / graph.nodes if graph and graph.nodes else 0.0,
        knobs=tuple(Tried(one.setting, one.low or 0.0, one.high or 0.0) for one in knobs),
        swept=profile.sweep is not None,
        fusions=tuple(fusions),
    )


def decide(found: Summary) -> Finding:
    """Say whether a fusion is justified: see docs/profile-method.md for the rule in prose."""
    ways = wins(found)
    knob = max(found.knobs, key=lambda one: one.low, default=None)

    def finding(justified: str, reason: str, settles: str | None = None) -> Finding:
        return Finding(justified, reason, ways, settles)

    def left(gain: float) -> float:
        """What the knob leaves of a gain: both close the same gaps."""
        return (1 + gain) / (1 + (knob.low if knob else 0.0)) - 1

    if found.tpot_s is None or found.exposed is None or found.bound is None:
        return finding(UNKNOWN, "what is on the critical path was not measured", "--parts split")
    proven = max(found.fusions, key=lambda one: one.low, default=None)
    if proven is not None and proven.low > WORTH:
        return finding(YES, f"{proven.name} was measured to win at least {_pc(proven.low)}")
    fewer = [one for one in ways if one.name in (BY_HOST, BY_DEVICE)]
    shown = max(fewer, key=lambda one: one.low, default=None)
    if shown is not None and left(shown.low) > WORTH:
        beyond = f" beyond what {knob.name} gives" if knob else ""
        return finding(
            YES,
            f"decode is {found.bound}: {shown.name} would win at least {_pc(left(shown.low))}{beyond}, "
            f"more than the {_pc(WORTH)} that a fusion must be worth",
        )
    largest = max(fewer, key=lambda one: one.high, default=None)
    if largest is not None and left(largest.high) <= WORTH:
        most = _pc(max(left(largest.high), 0.0))
        reason = f"decode is {found.bound} and {largest.name} could win {most} at most, less than {_pc(WORTH)}"
        if knob is not None and largest.high > WORTH:
            reason = (
                f"{knob.name} gives {_pc(knob.low)} or more for nothing, and {largest.name} could win "
                f"{_pc(largest.high)} at most, so {most} is left: set it and profile again"
            )
        return finding(NO, reason)
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
        f"decode is {found.bound}: fewer operations could win anything up to {_pc(left(largest.high))}, and nothing "
        "measured here says how much of it",
        "put one fusion to a duel" if found.swept else "--parts sweep, then a duel of one fusion",
    )


def wins(found: Summary) -> tuple[Win, ...]:
    """Every way to win that the figures allow to bound, largest first."""
    tpot, exposed = found.tpot_s, found.exposed
    if tpot is None or exposed is None:
        return ()
    ways = [way(found, tpot, exposed) for way in (_host, _views_and_glue, _device_glue)] + [_streaming(found, tpot)]
    return tuple(sorted((one for one in ways if one), key=lambda one: -one.high))


def _host(found: Summary, tpot: Estimate, exposed: Estimate) -> Win | None:
    """All host work gone: the time per token falls to the device's."""
    least, device = _device_least(found), found.device_s
    if least is None:
        return None
    share = min(max(exposed.high, 0.0), 1.0)
    high = tpot.high / least - 1 if share else 0.0
    low = value = 0.0
    if found.bound == DEVICE_BOUND:
        # What hidden host work could at most still cost: its share of the time per token, as a gain.
        part = min(found.host_s.high / tpot.value, 0.99) if found.host_s else 0.0
        high = min(high, share * part / (1 - part))
    elif found.bound == HOST_BOUND:
        low = tpot.low / _device_high(found, tpot) - 1
        value = tpot.value / max(device.value, 1e-12) - 1 if device else high
    return _win(
        "no host work at all",
        low,
        value,
        high,
        "the whole step as one dispatch: time per token falls to the device's busy time"
        + ("" if device else f", not measured, between the floor and {1e3 * (found.device_most_s or 0):.1f} ms"),
    )


def _views_and_glue(found: Summary, tpot: Estimate, exposed: Estimate) -> Win | None:
    """Host time falls by what views and glue cost it, as far as the device then lets the time per token fall."""
    host, every = found.host_s, found.views + found.glue
    if host is None or not every:
        return None

    def gain(tpot_s: float, saved_s: float, shown: float, device_s: float) -> float:
        saved = min(max(shown, 0.0), 1.0) * min(saved_s, tpot_s)
        return tpot_s / max(tpot_s - saved, min(device_s, tpot_s)) - 1

    def careful(host_s: float, build_s: float) -> float:
        return build_s * every + max(host_s - build_s, 0.0) * found.launched

    build = found.build_s or Estimate(0.0, 0.0, 0.0, host.rounds)
    most = _device_high(found, tpot)
    middle = found.device_s.value if found.device_s else most
    return _win(
        BY_HOST,
        gain(tpot.low, careful(host.low, build.low), exposed.low, most),
        gain(tpot.value, careful(host.value, build.value), exposed.value, middle),
        gain(tpot.high, host.high * every, exposed.high, _device_least(found) or 0.0),
        f"building costs the host the same for every node, of which {every:.0%} are views and glue; dispatching costs "
        f"it for what is no view, of which {found.launched:.0%} is glue; at most, both cost the same for every node",
    )


def _device_glue(found: Summary, tpot: Estimate, exposed: Estimate) -> Win | None:
    """What the device does besides the products, shared out by nodes that are no views; only where it is waited for."""
    if found.chain_s is None or found.bound == HOST_BOUND:
        return None
    besides = max(tpot.high - found.chain_s.low, 0.0)
    high = _gain(tpot.high, besides * found.launched * (1 - max(exposed.low, 0.0)))
    return _win(
        BY_DEVICE,
        0.0,
        high / 2,
        high,
        f"what is not products costs the device the same per operation, and {found.launched:.0%} of those are glue; it "
        "may cost nothing, where it overlaps",
    )


def _streaming(found: Summary, tpot: Estimate) -> Win | None:
    """The products at the bandwidth of one large product: better kernels, not fewer operations."""
    chain, stream = found.chain_s, found.stream_s
    if chain is None or stream is None:
        return None
    shown = found.bound != HOST_BOUND
    return _win(
        "streaming weights at the speed of one large product",
        0.0,
        _gain(tpot.value, shown * (chain.value - stream.value)),
        _gain(tpot.low, shown * (chain.high - stream.low)),
        "better product kernels, no fusion; nothing where the host is waited for",
    )


def _gain(tpot_s: float, saved_s: float) -> float:
    saved = min(max(saved_s, 0.0), 0.99 * tpot_s)
    return tpot_s / (tpot_s - saved) - 1


def _device_least(found: Summary) -> float | None:
    known = found.device_s or found.chain_s
    return known.low if known else None


def _device_high(found: Summary, tpot: Estimate) -> float:
    return found.device_s.high if found.device_s else found.device_most_s or tpot.high


def _win(name: str, low: float, value: float, high: float, assumption: str) -> Win:
    low, high = max(min(low, high), 0.0), max(low, high, 0.0)
    return Win(name, low, min(max(value, low), high), high, assumption)
