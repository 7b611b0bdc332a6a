"""Exact tripwires: what one decode token asks of MLX, by operation, type and bytes, without any timing."""

import pytest

from gemma3n_perf.decode.engines import counts_graph
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.workload.workload import Workload


@pytest.mark.usefixtures("compared")
def test_graph(workload: Workload, suite: SuiteSession) -> None:
    """Operations, types, bytes and host calls, beside those of what the session is compared with."""
    if not counts_graph(workload):
        pytest.skip("exact counts are those of mlx-vlm's model")
    suite.count_exact(workload)
