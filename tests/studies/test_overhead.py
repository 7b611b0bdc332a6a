"""The harness against a bare loop."""

import time
from pathlib import Path

import pytest
from scipy.stats import binom

from gemma3n_perf.decode import prompt
from gemma3n_perf.decode.decoder import Decoder
from gemma3n_perf.decode.device import MlxDevice
from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
from gemma3n_perf.profile.rounds import sign_test_interval
from gemma3n_perf.workload import load
from gemma3n_perf.workload.workload import Workload
from studies import overhead
from tests.decode.fakes import FakeProbe, nano_root


@pytest.mark.parametrize("n", [6, 7, 20, 60, 101])
def test_the_interval_holds_the_median_with_95_percent_and_is_not_wider_than_it_must(n: int) -> None:
    """Between the k-th smallest and the k-th largest value lies the median unless k or more fall on one side."""
    low, high = sign_test_interval(n)
    assert high == n - 1 - low
    assert 1 - 2 * binom.cdf(low, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(low + 1, n, 0.5) < 0.95


def test_both_loops_decode_the_same_work_from_the_same_place(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every pair has one run of each, the ratio is bare time over harness time, and the position is left as it was."""
    root: Path = nano_root(tmp_path_factory.getbasetemp())
    checkpoint = load.inspect("nano", root)
    workload = Workload.parse("nano/text/pp4-tg4")
    model = load.load(checkpoint, with_towers=False)
    session = Decoder(
        MlxVlmEngine(model),
        workload,
        prompt.make(workload, checkpoint),
        clock=time.perf_counter,
        device=MlxDevice(),
    )
    session.prepare()
    _, before = session.run(FakeProbe())
    notes: list[str] = []
    found = overhead.measure(model, session, workload, FakeProbe(), pairs=6, note=notes.append)
    assert (len(found.harness_s), len(found.bare_s), found.tokens, len(notes)) == (6, 6, 4, 6)
    ratios = sorted(b / h for b, h in zip(found.bare_s, found.harness_s, strict=True))
    assert found.ratio == pytest.approx((ratios[2] + ratios[3]) / 2)
    assert [found.low, found.high] == pytest.approx([ratios[0], ratios[-1]])
    assert session.run(FakeProbe())[1] == before
