"""Evidence for fusions: parity, dispatch, memory and a duel for each workload. Collected with --fusion NAME only."""

from gemma3n_perf.gate.record import Evidence
from gemma3n_perf.gate.session import refusal


def test_fusion(fusion: str, evidence: dict[str, Evidence]) -> None:
    """The fusion is right and dispatched here, and it loses nothing; its record is written in any case."""
    error = refusal(evidence[fusion])
    if error is not None:
        raise error
