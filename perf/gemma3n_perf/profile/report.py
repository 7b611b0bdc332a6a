"""A profile in a few lines for a terminal: the answer first, then what it rests on."""

from gemma3n_perf.profile import headroom
from gemma3n_perf.profile.types import Estimate, Knob, WorkloadProfile
from gemma3n_perf.report.rows import percent, size


def render(profile: WorkloadProfile) -> str:
    """Return the lines of one workload, answer first."""
    finding = headroom.decide(headroom.summarise(profile))
    lines = [f"{profile.workload}: fusion justified: {finding.justified}", f"  {finding.reason}"]
    if finding.settles:
        lines.append(f"  to settle it: {finding.settles}")
    if profile.split:
        one = profile.split
        lines.append(
            f"  split: {ms(one.pipelined.tpot_s)} a token pipelined, {ms(one.synchronous.tpot_s)} synchronous; "
            f"build {ms(one.pipelined.build_s)}, dispatch {ms(one.pipelined.dispatch_s)}, "
            f"wait {ms(one.pipelined.wait_s)}"
        )
        lines.append(f"  {one.bound}: {share(one.exposed)} of a host delay shows in the time per token")
    if profile.trace and profile.trace.busy_s:
        lines.append(f"  device: busy {ms(profile.trace.busy_s)} a token by {profile.trace.source}")
    if profile.floor:
        floor = profile.floor
        lines.append(
            f"  floor: {ms(floor.chain_s)} for {floor.products} products and {size(floor.streamed_bytes)}, "
            f"{share(floor.share)} of a token; one large product streams {size(round(floor.gemv_bandwidth.value))}/s, "
            f"a copy {size(round(floor.copy_bandwidth))}/s"
        )
    if profile.histogram:
        graph = profile.histogram
        groups = ", ".join(f"{count} {name}" for name, count in graph.groups.items())
        lines.append(f"  graph: {graph.nodes} nodes, {groups}")
    if profile.contexts:
        one_more = profile.contexts
        lines.append(f"  context: {us(one_more.slope_s)} more for every 1,000 tokens")
        if one_more.image_s:
            lines.append(f"  image less text at one length: {us(one_more.image_s)}")
    for result in profile.engines.results if profile.engines else ():
        said = result.error or (f"{1 / result.tpot_s.value:.1f} tok/s" if result.tpot_s else "nothing")
        if result.ratio:
            said += f", {ratio(result.ratio)} of the model loop"
        if result.first_difference:
            said += f", other tokens from the {result.first_difference}. on"
        lines.append(f"  {result.engine}: {said}")
    for knob in profile.sweep.knobs if profile.sweep else ():
        said = knob.reason if knob.effect is None else effect(knob)
        lines.append(f"  {knob.setting}: {knob.verdict}: {said}")
    for win in finding.wins:
        low, high = percent(win.gain.low, 1), percent(win.gain.high, 1)
        lines.append(f"  at most by {win.name}: {low} to {high}")
    lines += [f"  not measured: {one.part}: {one.reason}" for one in profile.missing]
    return "\n".join(lines)


def ms(value: Estimate) -> str:
    """Return ``12.3 ms [12.0, 12.9]``."""
    return f"{1e3 * value.value:.2f} ms [{1e3 * value.low:.2f}, {1e3 * value.high:.2f}]"


def us(value: Estimate) -> str:
    """Return ``+123 us [-4, 250]``."""
    return f"{1e6 * value.value:+.0f} us [{1e6 * value.low:+.0f}, {1e6 * value.high:+.0f}]"


def share(value: Estimate) -> str:
    """Return ``83 % [80, 86]``."""
    return f"{100 * value.value:.0f} % [{100 * value.low:.0f}, {100 * value.high:.0f}]"


def effect(knob: Knob) -> str:
    """Return ``+1.2 % [-0.3, +2.7]``, or ``-`` where nothing was measured."""
    if knob.effect is None or knob.low is None or knob.high is None:
        return "-"
    low, high = (percent(value, 1, sign=True).removesuffix(" %") for value in (knob.low, knob.high))
    return f"{percent(knob.effect, 1, sign=True)} [{low}, {high}]"


def ratio(value: Estimate) -> str:
    """Return ``0.97 [0.95, 0.99]``."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"
