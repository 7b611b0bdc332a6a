"""A profile's streaming floor: in words, and as the bars of its plot."""

from gemma3n_perf.profile.report import ms, share
from gemma3n_perf.profile.types import Estimate, WorkloadProfile
from gemma3n_perf.report.rows import percent, size

_PUBLISHED_STREAM = {"e4b-4bit": 2.472e9}
"""Bytes of the published streaming floor (lablup/mlxcel #345): attention, MLP and head."""


def bars(one: WorkloadProfile) -> list[tuple[str, Estimate]]:
    """Seconds of a token beside its floors, by name; none where no floor was measured."""
    floor, found = one.floor, list[tuple[str, Estimate]]()
    if floor is None:
        return found
    found.append(("decode, per token", one.split.pipelined.tpot_s if one.split else floor.tpot_s))
    if one.trace and one.trace.busy_s:
        found.append((f"device busy ({one.trace.source})", one.trace.busy_s))
    found.append(("weight products alone", floor.chain_s))
    rate = floor.gemv_bandwidth
    least, middle, most = (floor.streamed_bytes / value for value in (rate.high, rate.value, rate.low))
    stream = Estimate(middle, least, most, rate.rounds)
    found.append(("bytes at one large product's speed", stream))
    copied = floor.streamed_bytes / floor.copy_bandwidth
    found.append(("bytes at a copy's speed", Estimate(copied, copied, copied, 1)))
    return found


def floor_lines(one: WorkloadProfile) -> str:
    """Products alone, bytes and bandwidths, as a list."""
    floor = one.floor
    assert floor is not None
    lines = [
        f"- {floor.products} weight products, chained: {ms(floor.chain_s)} a token, of which the host needs "
        f"{ms(floor.dispatch_s)} to dispatch them; {share(floor.share)} of the time per token",
        f"- streamed by the checkpoint's headers: {size(floor.streamed_bytes)} a token, so "
        f"{size(round(floor.bandwidth))}/s; "
        f"one large product streams {size(round(floor.gemv_bandwidth.value))}/s "
        f"[{size(round(floor.gemv_bandwidth.low))}/s, {size(round(floor.gemv_bandwidth.high))}/s], "
        f"a copy {size(round(floor.copy_bandwidth))}/s",
    ]
    if floor.dispatch_s.low > 0.8 * floor.chain_s.value:
        lines.append("- the chain itself waits for the host's dispatch: the products alone would be faster still")
    products = sum(floor.by_part.values())
    parts = ", ".join(f"{part} {size(value)}" for part, value in floor.by_part.items())
    apart = percent((floor.streamed_bytes - products) / floor.streamed_bytes, 2)
    lines.append(f"- by part: {parts}; norms and vectors are the other {apart}")
    published = _PUBLISHED_STREAM.get(one.workload.split("/")[0])
    if published:
        ours = sum(floor.by_part[part] for part in ("attention", "mlp", "head"))
        lines.append(
            f"- the published decomposition streams {size(round(published))}: attention, MLP and head, here "
            f"{size(ours)}, {percent(ours / published - 1, 2, sign=True)}"
        )
    return "\n".join(lines)
