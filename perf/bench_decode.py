"""Decode throughput and time per output token: checkpoint x modality x shape."""

from typing import Any

import pytest

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.bench.clock import MeasuredClock
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.workload.workload import Workload

CLOCK = MeasuredClock()


@pytest.mark.benchmark(group="decode, seconds per token (OPS: tok/s)", timer=CLOCK)
def test_decode(workload: Workload, bench: Bench, suite: SuiteSession, benchmark: Any) -> None:
    """Every round is one run that counts: a pipelined decode from one fixed position."""
    bench.prepare(workload)
    benchmark.pedantic(lambda: CLOCK.advance(bench.take_run(workload).tpot_s), rounds=bench.required(workload))
    benchmark.extra_info.update(suite.measured(bench.measurement(workload)))
