"""Today's numbers out of a duel: the runs that its launches took of this program, so that nothing is measured twice.

They are what a session takes without a comparison: as many steps, from the same position, pipelined. Blocks would not
do. On a CPU they take up to a tenth longer, for what the other arm left in the caches.
"""

from gemma3n_perf.decode.decoder import NOT_REPRODUCIBLE
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.duel.scheduler import ComparisonState


def measurement(
    state: ComparisonState, engine: str, planted: float, streamed_bytes: int, copy_bandwidth: float, graph: Graph | None
) -> Measurement | None:
    """Return the candidate of a comparison as a session would have measured it; None where no run of it counts."""
    reported = [one.prefills for one in state.launches if one.prefills is not None]
    taken = [one for prefills in reported for one in prefills.runs]
    runs = tuple(one.run for one in taken if not one.run.faults)
    if not runs or state.sides is None:
        return None
    side = state.sides["candidate"]
    return Measurement(
        workload=state.workload,
        engine=engine,
        prompt_tokens=side.loaded.prompt_tokens,
        generated_tokens=side.loaded.generated_tokens,
        runs=runs,
        discarded=tuple(one.run for one in taken if one.run.faults),
        ttft_s=tuple(candidate for prefills in reported for _, candidate in prefills.ttft_s),
        peak_memory_bytes=max(one.peak_bytes for one in taken),
        kv_bytes=taken[-1].kv_bytes,
        streamed_bytes=streamed_bytes,
        checkpoint_digest=side.loaded.checkpoint_digest,
        token_digest=side.token_digest,
        planted=planted,
        soft_tokens=side.loaded.soft_tokens,
        copy_bandwidth=copy_bandwidth,
        graph=graph,
        prefill_reproducible=all(prefills.fault != NOT_REPRODUCIBLE for prefills in reported),
    )
