"""The ways to win on a chip, each bounded from a profile's figures: pure functions.

Opinion: an upper bound is not a promise, so each way has a lower one too, and says what it takes for granted.
"""

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
    """One way to win: how much, on which assumption, and whether it is reached by a fusion."""

    name: str
    gain: Range
    assumption: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A fusion or knob that was measured here: effects on throughput as fractions, with their source."""

    name: str
    low: float
    high: float
    source: str


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
    if found.tpot_s is None:
        return ()
    ways = [_host(found), _views_and_glue(found), _device_glue(found), _streaming(found)]
    return tuple(sorted((one for one in ways if one), key=lambda one: -one.gain.high))


def _host(found: Summary) -> Win | None:
    """All host work gone: the time per token falls to the device's."""
    tpot, exposed = found.tpot_s, found.exposed
    if tpot is None or exposed is None:
        return None
    share = min(max(exposed.high, 0.0), 1.0)
    least = _device_low(found)
    if least is None:
        return None
    high = tpot.high / least - 1 if share else 0.0
    if found.bound == DEVICE_BOUND:
        high = min(high, share * _ratio(found))
    device = found.device_s
    value = high if device is None else tpot.value / max(device.value, 1e-12) - 1
    low = 0.0
    if found.bound == HOST_BOUND and (device is not None or found.device_most_s is not None):
        low = tpot.low / (device.high if device else found.device_most_s or tpot.high) - 1
    gain = _ordered(low, value if found.bound == HOST_BOUND else low, high)
    return Win(
        "no host work at all", gain,
        "the whole step as one dispatch: time per token falls to the device's busy time"
        + ("" if device else f", not measured, between the floor and {1e3 * (found.device_most_s or 0):.1f} ms"),
    )  # fmt: skip


def _ratio(found: Summary) -> float:
    """Host time over time per token at its upper end, as a gain: what hidden host work could at most still cost."""
    assert found.tpot_s is not None
    if found.host_s is None:
        return 0.0
    part = min(found.host_s.high / found.tpot_s.value, 0.99)
    return part / (1 - part)


def _views_and_glue(found: Summary) -> Win | None:
    """Host time falls by what views and glue cost it, as far as the device then lets the time per token fall."""
    tpot, host, exposed = found.tpot_s, found.host_s, found.exposed
    if tpot is None or host is None or exposed is None or not found.views + found.glue:
        return None
    every = found.views + found.glue
    launched = found.glue / (1 - found.views) if found.views < 1 else 0.0

    def gain(tpot_s: float, saved_s: float, shown: float, device_s: float) -> float:
        saved = min(max(shown, 0.0), 1.0) * min(saved_s, tpot_s)
        return tpot_s / max(tpot_s - saved, device_s) - 1

    def careful(host_s: float, build_s: float) -> float:
        return build_s * every + max(host_s - build_s, 0.0) * launched

    build = found.build_s or Estimate(0.0, 0.0, 0.0, host.rounds)
    device = found.device_s
    most = device.high if device else found.device_most_s or tpot.high
    middle = device.value if device else most
    least = _device_low(found) or 0.0
    return Win(
        BY_HOST,
        _ordered(
            gain(tpot.low, careful(host.low, build.low), exposed.low, min(most, tpot.low)),
            gain(tpot.value, careful(host.value, build.value), exposed.value, min(middle, tpot.value)),
            gain(tpot.high, host.high * every, exposed.high, min(least, tpot.high)),
        ),
        f"building costs the host the same for every node, of which {every:.0%} are views and glue; dispatching costs "
        f"it for what is no view, of which {launched:.0%} is glue; at most, both cost the same for every node",
    )


def _device_glue(found: Summary) -> Win | None:
    """What the device does besides the products, shared out by nodes that are no views; only where it is waited for."""
    tpot, exposed, chain = found.tpot_s, found.exposed, found.chain_s
    if tpot is None or exposed is None or chain is None:
        return None
    if found.bound == HOST_BOUND:
        return None
    working = 1 - found.views
    part = found.glue / working if working else 0.0
    besides = max(tpot.high - chain.low, 0.0)
    shown = 1 - max(exposed.low, 0.0)
    saved = min(besides * part * shown, 0.99 * tpot.high)
    high = tpot.high / (tpot.high - saved) - 1
    return Win(
        BY_DEVICE,
        _ordered(0.0, high / 2, high),
        f"what is not products costs the device the same per operation, and {part:.0%} of those are glue; it may cost "
        "nothing, where it overlaps",
    )


def _streaming(found: Summary) -> Win | None:
    """The products at the bandwidth of one large product: better kernels, not fewer operations."""
    tpot, chain, stream, exposed = found.tpot_s, found.chain_s, found.stream_s, found.exposed
    if tpot is None or chain is None or stream is None or exposed is None:
        return None
    device_bound = found.bound != HOST_BOUND
    high_saved = min(max(chain.high - stream.low, 0.0), 0.99 * tpot.low) if device_bound else 0.0
    value_saved = min(max(chain.value - stream.value, 0.0), 0.99 * tpot.value) if device_bound else 0.0
    return Win(
        "streaming weights at the speed of one large product",
        _ordered(
            0.0, tpot.value / (tpot.value - value_saved) - 1, tpot.low / (tpot.low - high_saved) - 1
        ),
        "better product kernels, no fusion; nothing where the host is waited for",
    )  # fmt: skip


def _device_low(found: Summary) -> float | None:
    if found.device_s is not None:
        return found.device_s.low
    return found.chain_s.low if found.chain_s is not None else None


def _ordered(low: float, value: float, high: float) -> Range:
    low, high = max(min(low, high), 0.0), max(low, high, 0.0)
    return Range(min(max(value, low), high), low, high)
