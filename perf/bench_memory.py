"""Peak memory and KV cache bytes, without statistics: the cache's are exact, and the peak is so but for a tenth."""

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.workload.workload import Workload


def test_memory(workload: Workload, bench: Bench, suite: SuiteSession) -> None:
    """The KV cache holds what the workload's positions need, and peak memory is what the baseline recorded."""
    measured = bench.measurement(workload)
    assert measured.peak_memory_bytes >= measured.kv_bytes > 0
    suite.require_unchanged(measured, ("peak_memory_bytes", "kv_bytes"))
