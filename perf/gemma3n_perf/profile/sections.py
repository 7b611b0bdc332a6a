"""The sections of a profile's page, one for each part, as Markdown."""

from collections.abc import Mapping

from gemma3n_perf.profile.histogram import reason
from gemma3n_perf.profile.report import effect, ms, rate, ratio, share, us
from gemma3n_perf.profile.trace import gaps
from gemma3n_perf.profile.types import (
    Comparison,
    Contexts,
    Deviation,
    EngineResult,
    Engines,
    Estimate,
    Floor,
    Histogram,
    Split,
    Sweep,
    Taken,
    Trace,
    WorkloadProfile,
)
from gemma3n_perf.report.markdown import escape, table
from gemma3n_perf.report.units import percent, seconds, size
from gemma3n_perf.workload.presets import PRESETS

_PUBLISHED_STREAM = {"e4b-4bit": 2.472e9}
"""Bytes of the published streaming floor (lablup/mlxcel #345): attention, MLP and head."""


def split(found: Split) -> str:
    """Both loops by their stages, and what the planted delay shows."""
    rows = [
        (name, *(ms(value) for value in (loop.build_s, loop.sample_s, loop.dispatch_s, loop.wait_s, loop.tpot_s)))
        for name, loop in (("pipelined", found.pipelined), ("synchronous", found.synchronous))
    ]
    return (
        table(("loop", "build", "sample", "dispatch", "wait", "per token"), rows, left=("loop",))
        + f"\n\nOf a delay of {seconds(found.planted_s)} planted on the host for every token, {share(found.exposed)} "
        f"shows in the time per token: decode is **{found.bound}**. Pipelining hides {ms(found.hidden_s)} a token."
    )


def bars(one: WorkloadProfile, floor: Floor) -> list[tuple[str, Estimate]]:
    """Seconds of a token beside its floors, by name."""
    copied = floor.streamed_bytes / floor.copy_bandwidth
    found = [("decode, per token", one.split.pipelined.tpot_s if one.split else floor.tpot_s)]
    if one.trace and one.trace.busy_s:
        found.append((f"device busy ({one.trace.source})", one.trace.busy_s))
    return [
        *found,
        ("weight products alone", floor.chain_s),
        ("bytes at one large product's speed", floor.stream_s),
        ("bytes at a copy's speed", Estimate(copied, copied, copied, 1)),
    ]


def floor(found: Floor, checkpoint: str) -> str:
    """Products alone, bytes and bandwidths, as a list."""
    product = found.gemv_bandwidth
    lines = [
        f"- {found.products} weight products, chained: {ms(found.chain_s)} a token, of which the host needs "
        f"{ms(found.dispatch_s)} to dispatch them; {share(found.share)} of the time per token",
        f"- streamed by the checkpoint's headers: {size(found.streamed_bytes)} a token, so {rate(found.bandwidth)}; "
        f"one large product streams {rate(product.value)} [{rate(product.low)}, {rate(product.high)}], "
        f"a copy {rate(found.copy_bandwidth)}",
    ]
    if found.dispatch_s.low > 0.8 * found.chain_s.value:
        lines.append("- the chain itself waits for the host's dispatch: the products alone would be faster still")
    parts = ", ".join(f"{part} {size(value)}" for part, value in found.by_part.items())
    apart = percent((found.streamed_bytes - sum(found.by_part.values())) / found.streamed_bytes, 2)
    lines.append(f"- by part: {parts}; norms and vectors are the other {apart}")
    if published := _PUBLISHED_STREAM.get(checkpoint):
        ours = sum(found.by_part[part] for part in ("attention", "mlp", "head"))
        lines.append(
            f"- the published decomposition streams {size(round(published))}: attention, MLP and head, here "
            f"{size(ours)}, {percent(ours / published - 1, 2, sign=True)}"
        )
    return "\n".join(lines)


def trace(found: Trace, of: Split | None) -> str:
    """The device's own account, and what it leaves of a token."""
    text = f"By {found.source}"
    if found.busy_s:
        text += f" the device computes {ms(found.busy_s)} of a token"
        if of and (idle := gaps(found, of.pipelined.tpot_s)):
            text += f" and does nothing for {share(idle)} of its time"
        if found.kernels:
            text += f", {found.kernels:.0f} kernels a token"
    return f"{text}. {found.note[0].upper()}{found.note[1:]}." if found.note else f"{text}."


def histogram(found: Histogram) -> str:
    """Nodes by group and type, and the calls that the config tells beside those in the graph."""
    groups = ", ".join(
        f"{count} {name} ({percent(count / found.nodes)}, {count / found.layers:.1f} a layer)"
        for name, count in found.groups.items()
    )
    kinds = ", ".join(f"{name} {count}" for name, count in found.dtypes.items())
    counts = [(name, count, found.found.get(name, 0)) for name, count in found.expected.items()]
    rows = ((f"`{name}`", str(old), str(new), "yes" if old == new else "**no**") for name, old, new in counts)
    return (
        f"{found.nodes} nodes at {found.position} tokens of context over {found.layers} layers: {groups}. "
        f"Types: {kinds}.\n\n" + table(("call", "by the config", "in the graph", "same"), rows, left=("call", "same"))
    )


def comparison(one: Comparison, found: Histogram, checkpoint: str) -> str:
    """Counts that differ from one other source, each with its reason.

    A preset's reasons for the published counts are today's; another checkpoint's are those of the day it was profiled.
    """
    if not one.deviations:
        return f"Beside {one.against} ({escape(one.source)}): no count differs."

    def why(row: Deviation) -> str:
        if one.against != "published":
            return row.why or "-"
        if checkpoint not in PRESETS:
            return row.why or "not explained"
        known = reason(row.name, row.before, row.after, found.operations, PRESETS[checkpoint].config())
        return known or "not explained"

    rows = ((f"`{row.name}`", str(row.before), str(row.after), why(row)) for row in one.deviations)
    head = f"Beside {one.against} ({escape(one.source)}), counts that differ:"
    return head + "\n\n" + table(("operation", one.against, "here", "why"), rows, left=("operation", "why"))


def contexts(found: Contexts) -> str:
    """Each length, the slope, and an image beside text of its length."""
    points = [*found.points, *((found.image,) if found.image else ())]
    rows = ((each.modality, str(each.positions), ms(each.ttft_s), ms(each.tpot_s)) for each in points)
    text = table(("prompt", "tokens in the cache", "prefill", "per token"), rows, left=("prompt",))
    text += f"\n\nEvery 1,000 tokens of context add {us(found.slope_s)} a token."
    if found.image_s and found.explained_s:
        same = "no difference is shown" if found.image_s.low <= 0 <= found.image_s.high else "they differ"
        text += (
            f" At the same length decode after an image takes {us(found.image_s)} against text: {same}. The 256 tokens "
            f"of an image on top of a text would explain {us(found.explained_s)} by the slope; the tower is a cost "
            "of prefill."
        )
    if found.image_missing:
        text += f" Image not measured: {escape(found.image_missing)}."
    return text


def sweep(found: Sweep) -> str:
    """Each setting's duel, and the one that is suggested."""
    rows = ((f"`{knob.setting}`", effect(knob), knob.verdict, str(knob.launches), knob.reason) for knob in found.knobs)
    header = ("setting", "throughput", "verdict", "launches", "reason")
    suggested = f"Suggested for this class: `{found.suggestion}`." if found.suggestion else "No setting is suggested."
    return table(header, rows, left=("setting", "verdict", "reason")) + f"\n\n{suggested}"


def engines(found: Engines) -> str:
    """Each engine's throughput, its ratio to the first one, and whether its tokens are the same."""
    rows = (
        (
            f"{one.engine} {one.version or ''}".strip(),
            _speed(one.tpot_s) if one.tpot_s else "-",
            ratio(one.ratio) if one.ratio else "-",
            _tokens(one),
            "; ".join(filter(None, (one.error, one.note))) or "-",
        )
        for one in found.results
    )
    header = ("engine", "tok/s", "of the model loop", "greedy tokens", "remark")
    return (
        f"{found.tokens} tokens after a prompt of {found.prompt_tokens}, (n-1)/(t_last - t_first), prefill "
        "left out:\n\n" + table(header, rows, left=("engine", "greedy tokens", "remark"))
    )


def _speed(tpot_s: Estimate) -> str:
    return f"{1 / tpot_s.value:.1f} [{1 / tpot_s.high:.1f}, {1 / tpot_s.low:.1f}]"


def _tokens(one: EngineResult) -> str:
    if one.error:
        return "-"
    if not one.compared_tokens:
        return "not comparable"
    return f"other from token {one.first_difference} on" if one.first_difference else f"the same {one.compared_tokens}"


def reproduce(workload: str, taken: Mapping[str, Taken]) -> str:
    """The commands, and when each part was measured."""
    rows = ((part, one.date, f"{one.seconds:.0f} s", ", ".join(one.faults) or "none") for part, one in taken.items())
    commands = f"```\ngemma3n-perf profile --workload {workload}\ngemma3n-perf profile --page\n```"
    header = ("part", "measured", "took", "cautions")
    return commands + "\n\n" + table(header, rows, left=("part", "measured", "cautions"))
