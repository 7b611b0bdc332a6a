"""Time to first token: prefill of the whole prompt, image tower included, to the first token read."""

from typing import Any

import pytest

from gemma3n_perf.bench.bench import Bench
from gemma3n_perf.bench.clock import MeasuredClock
from gemma3n_perf.workload.workload import Workload

CLOCK = MeasuredClock()


@pytest.mark.benchmark(group="prefill, seconds to the first token", timer=CLOCK)
def test_prefill(workload: Workload, bench: Bench, benchmark: Any) -> None:
    """Every round is one warm prefill into an empty KV cache."""
    rounds = bench.first_tokens(workload)
    if not rounds:
        pytest.skip("no prefill is timed: one here would not be generation's own, or an old program is compared with")
    benchmark.pedantic(lambda: CLOCK.advance(bench.take_first_token(workload)), rounds=rounds)
    median = benchmark.stats.stats.median if benchmark.stats else None
    if median:
        benchmark.extra_info["prefill_tokens_per_s"] = workload.shape.prompt * workload.shape.batch / median
