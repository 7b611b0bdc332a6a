"""Evidence for fusions: parity, dispatch, memory and a duel for each workload. Collected with --fusion NAME only."""

from collections.abc import Callable

from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import refusal


def test_fusion(fusion: str, evidence: dict[str, Evidence], record_property: Callable[[str, object], None]) -> None:
    """The fusion is right and dispatched here, and it loses nothing; its record is written in any case."""
    record_property("verdict", evidence[fusion].verdict)
    for one in evidence[fusion].workloads:
        record_property(f"verdict {one.workload}", one.judgement.verdict.value)
    error = refusal(evidence[fusion])
    if error is not None:
        raise error
