"""The ways to win on a chip, each bounded from below and above by a profile's figures: pure functions."""

from dataclasses import dataclass

from gemma3n_perf.profile.types import DEVICE_BOUND, HOST_BOUND, Estimate

BY_HOST = "taking views and glue off the host"
BY_DEVICE = "running no glue on the device"


@dataclass(frozen=True, slots=True)
class Range:
    """A gain of throughput as a fraction: 0.1 is 10 % more. ``low`` to ``high`` holds it under the assumption made."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Win:
    """One way to win: how much at most and at least, and what that takes for granted."""

    name: str
    gain: Range
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


def wins(found: Summary) -> tuple[Win, ...]:
    """Every way to win that the figures allow to bound, largest first."""
    tpot, exposed = found.tpot_s, found.exposed
    if tpot is None or exposed is None:
        return ()
    ways = [way(found, tpot, exposed) for way in (_host, _views_and_glue, _device_glue)] + [_streaming(found, tpot)]
    return tuple(sorted((one for one in ways if one), key=lambda one: -one.gain.high))


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
    return Win(
        "no host work at all",
        _ordered(low, value, high),
        "the whole step as one dispatch: time per token falls to the device's busy time"
        + ("" if device else f", not measured, between the floor and {1e3 * (found.device_most_s or 0):.1f} ms"),
    )


def _views_and_glue(found: Summary, tpot: Estimate, exposed: Estimate) -> Win | None:
    """Host time falls by what views and glue cost it, as far as the device then lets the time per token fall."""
    host, every = found.host_s, found.views + found.glue
    if host is None or not every:
        return None
    launched = found.glue / (1 - found.views) if found.views < 1 else 0.0

    def gain(tpot_s: float, saved_s: float, shown: float, device_s: float) -> float:
        saved = min(max(shown, 0.0), 1.0) * min(saved_s, tpot_s)
        return tpot_s / max(tpot_s - saved, min(device_s, tpot_s)) - 1

    def careful(host_s: float, build_s: float) -> float:
        return build_s * every + max(host_s - build_s, 0.0) * launched

    build = found.build_s or Estimate(0.0, 0.0, 0.0, host.rounds)
    most = _device_high(found, tpot)
    middle = found.device_s.value if found.device_s else most
    return Win(
        BY_HOST,
        _ordered(
            gain(tpot.low, careful(host.low, build.low), exposed.low, most),
            gain(tpot.value, careful(host.value, build.value), exposed.value, middle),
            gain(tpot.high, host.high * every, exposed.high, _device_least(found) or 0.0),
        ),
        f"building costs the host the same for every node, of which {every:.0%} are views and glue; dispatching costs "
        f"it for what is no view, of which {launched:.0%} is glue; at most, both cost the same for every node",
    )


def _device_glue(found: Summary, tpot: Estimate, exposed: Estimate) -> Win | None:
    """What the device does besides the products, shared out by nodes that are no views; only where it is waited for."""
    if found.chain_s is None or found.bound == HOST_BOUND:
        return None
    part = found.glue / (1 - found.views) if found.views < 1 else 0.0
    besides = max(tpot.high - found.chain_s.low, 0.0)
    saved = min(besides * part * (1 - max(exposed.low, 0.0)), 0.99 * tpot.high)
    high = tpot.high / (tpot.high - saved) - 1
    return Win(
        BY_DEVICE,
        _ordered(0.0, high / 2, high),
        f"what is not products costs the device the same per operation, and {part:.0%} of those are glue; it may cost "
        "nothing, where it overlaps",
    )


def _streaming(found: Summary, tpot: Estimate) -> Win | None:
    """The products at the bandwidth of one large product: better kernels, not fewer operations."""
    chain, stream = found.chain_s, found.stream_s
    if chain is None or stream is None:
        return None

    def gain(tpot_s: float, saved_s: float) -> float:
        saved = 0.0 if found.bound == HOST_BOUND else min(max(saved_s, 0.0), 0.99 * tpot_s)
        return tpot_s / (tpot_s - saved) - 1

    return Win(
        "streaming weights at the speed of one large product",
        _ordered(0.0, gain(tpot.value, chain.value - stream.value), gain(tpot.low, chain.high - stream.low)),
        "better product kernels, no fusion; nothing where the host is waited for",
    )


def _device_least(found: Summary) -> float | None:
    if found.device_s is not None:
        return found.device_s.low
    return found.chain_s.low if found.chain_s is not None else None


def _device_high(found: Summary, tpot: Estimate) -> float:
    return found.device_s.high if found.device_s else found.device_most_s or tpot.high


def _ordered(low: float, value: float, high: float) -> Range:
    low, high = max(min(low, high), 0.0), max(low, high, 0.0)
    return Range(min(max(value, low), high), low, high)
