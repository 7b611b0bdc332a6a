"""Exact tripwires: what one decode token asks of MLX, by operation, type and bytes, without any timing."""

from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.workload.workload import Workload


def test_graph(workload: Workload, suite: SuiteSession) -> None:
    """The decode graph has the operations, types and streamed bytes that the baseline recorded."""
    suite.require_same_graph(workload)
