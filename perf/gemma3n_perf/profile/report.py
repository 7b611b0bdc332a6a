"""A profile in a few lines for a terminal: the conclusion first, then what it rests on; and figures as text."""

from collections.abc import Iterator

from gemma3n_perf.profile import headroom
from gemma3n_perf.profile.types import Estimate, Knob, WorkloadProfile
from gemma3n_perf.report import units
from gemma3n_perf.report.units import percent, size


def render(profile: WorkloadProfile) -> str:
    """Return the lines of one workload, conclusion first."""
    finding = headroom.decide(headroom.summarise(profile))
    lines = [f"{profile.workload}: fusion justified: {finding.justified}", f"  {finding.reason}"]
    if finding.settles:
        lines.append(f"  to settle it: {finding.settles}")
    lines += [f"  {line}" for line in _parts(profile)]
    for win in finding.wins:
        lines.append(f"  at most by {win.name}: {percent(win.gain.low, 1)} to {percent(win.gain.high, 1)}")
    lines += [f"  not measured: {one.part}: {one.reason}" for one in profile.missing]
    return "\n".join(lines)


def _parts(profile: WorkloadProfile) -> Iterator[str]:
    if split := profile.split:
        loop = split.pipelined
        yield (
            f"split: {ms(loop.tpot_s)} a token pipelined, {ms(split.synchronous.tpot_s)} synchronous; "
            f"build {ms(loop.build_s)}, dispatch {ms(loop.dispatch_s)}, wait {ms(loop.wait_s)}"
        )
        yield f"{split.bound}: {share(split.exposed)} of a host delay shows in the time per token"
    if profile.trace and profile.trace.busy_s:
        yield f"device: busy {ms(profile.trace.busy_s)} a token by {profile.trace.source}"
    if floor := profile.floor:
        yield (
            f"floor: {ms(floor.chain_s)} for {floor.products} products and {size(floor.streamed_bytes)}, "
            f"{share(floor.share)} of a token; one large product streams {rate(floor.gemv_bandwidth.value)}, "
            f"a copy {rate(floor.copy_bandwidth)}"
        )
    if graph := profile.histogram:
        groups = ", ".join(f"{count} {name}" for name, count in graph.groups.items())
        yield f"graph: {graph.nodes} nodes, {groups}"
    if contexts := profile.contexts:
        yield f"context: {us(contexts.slope_s)} more for every 1,000 tokens"
        if contexts.image_s:
            yield f"image less text at one length: {us(contexts.image_s)}"
    for result in profile.engines.results if profile.engines else ():
        line = result.error or (f"{1 / result.tpot_s.value:.1f} tok/s" if result.tpot_s else "nothing")
        if result.ratio:
            line += f", {ratio(result.ratio)} of the model loop"
        if result.first_difference:
            line += f", other tokens from the {result.first_difference}. on"
        yield f"{result.engine}: {line}"
    for knob in profile.sweep.knobs if profile.sweep else ():
        yield f"{knob.setting}: {knob.verdict}: {knob.reason if knob.effect is None else effect(knob)}"


def ms(value: Estimate) -> str:
    """Return ``12.30 ms [12.00, 12.90]``."""
    return _scaled(value, 1e3, ".2f", " ms")


def us(value: Estimate) -> str:
    """Return ``+123 us [-4, +250]``."""
    return _scaled(value, 1e6, "+.0f", " us")


def share(value: Estimate) -> str:
    """Return ``83 % [80, 86]``."""
    return _scaled(value, 100, ".0f", " %")


def ratio(value: Estimate) -> str:
    """Return ``0.970 [0.950, 0.990]``."""
    return _scaled(value, 1, ".3f", "")


def rate(bytes_per_s: float) -> str:
    """Return ``2.41 GB/s``."""
    return f"{size(round(bytes_per_s))}/s"


def effect(knob: Knob) -> str:
    """Return ``+1.2 % [-0.3, +2.7]``, or ``-`` where nothing was measured."""
    return units.effect(knob.effect, knob.low, knob.high, 1)


def _scaled(value: Estimate, scale: float, spec: str, unit: str) -> str:
    middle, low, high = (f"{scale * one:{spec}}" for one in (value.value, value.low, value.high))
    return f"{middle}{unit} [{low}, {high}]"
