"""Peak memory and KV cache bytes, measured and stored; only the processes of a duel are compared in them."""

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.workload.workload import Workload


def test_memory(workload: Workload, bench: Bench) -> None:
    """The KV cache holds what the workload's positions need, and the peak holds that."""
    measured = bench.measurement(workload)
    assert measured.peak_memory_bytes >= measured.kv_bytes > 0
