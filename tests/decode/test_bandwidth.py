from typing import Any

import numpy as np
import pytest

from gemma3n_perf.decode import bandwidth
from tests.decode.fakes import FakeClock


def test_the_best_copy_counts_as_read_and_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of 100 bytes in 4, 2, 1, 2 seconds: 200 bytes moved in 1 s at best; the first one warms up."""
    clock = FakeClock()
    took = iter([4.0, 2.0, 1.0, 2.0])
    monkeypatch.setattr(bandwidth, "_cpu_copy", lambda: (lambda: clock.passes(next(took)), 200))
    monkeypatch.setattr(bandwidth, "_gpu_copy", lambda: (lambda: clock.passes(next(took)), 200))
    assert bandwidth.copy_bandwidth(clock, repeats=3) == pytest.approx(200.0)
    assert next(took, None) is None


def test_a_cpu_copy_moves_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target holds the source afterwards; bytes are counted once read and once written."""
    monkeypatch.setattr(bandwidth, "_CPU_BYTES", 1 << 10)
    copied: list[Any] = []
    monkeypatch.setattr(np, "copyto", lambda target, source: copied.append((target.nbytes, source.nbytes)))
    run, moved = bandwidth._cpu_copy()
    run()
    assert copied == [(1 << 10, 1 << 10)]
    assert moved == 2 << 10
