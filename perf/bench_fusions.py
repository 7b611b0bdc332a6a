"""Evidence for fusions: parity, dispatch, memory and a duel for each workload. Collected with --fusion NAME only."""

from gemma3n_perf.pytest_fusions import require_no_refusal
from gemma3n_perf.store.evidence import Evidence


def test_fusion(fusion: str, evidence: dict[str, Evidence]) -> None:
    """The fusion is right and dispatched here, and it loses nothing; its record is written in any case."""
    require_no_refusal(evidence[fusion])
