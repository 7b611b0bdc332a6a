"""The rule: from figures to yes, no or unknown. Published figures are of lablup/mlxcel #345 and #358, June 2026."""

from dataclasses import replace
from typing import Any

import pytest

from gemma3n_perf.profile import headroom
from gemma3n_perf.profile.headroom import NO, UNKNOWN, WORTH, YES, Summary, Tried, wins
from gemma3n_perf.profile.histogram import PUBLISHED, group_of
from gemma3n_perf.profile.types import DEVICE_BOUND, HOST_BOUND, MIXED, Estimate
from tests.profile.made import about, floor, histogram, split, sweep, trace, workload

PUBLISHED_NODES = 4_209
PUBLISHED_VIEWS = sum(n for name, n in PUBLISHED.items() if group_of(name) == "view") / PUBLISHED_NODES
PUBLISHED_GLUE = sum(n for name, n in PUBLISHED.items() if group_of(name) == "glue") / PUBLISHED_NODES


def host_bound(**changes: Any) -> Summary:
    """Return a decode of 28 ms of which the device computes 6, all else the host's."""
    made = Summary(
        tpot_s=about(0.028), host_s=about(0.027), exposed=Estimate(0.95, 0.85, 1.05, 12), bound=HOST_BOUND,
        build_s=about(0.007), device_s=about(0.006), chain_s=about(0.0036), stream_s=about(0.0012),
        views=0.40, glue=0.11, swept=True,
    )  # fmt: skip
    return replace(made, **changes)


def device_bound(**changes: Any) -> Summary:
    """Return a decode of 16 ms that the device computes without pause, the products taking 6."""
    made = Summary(
        tpot_s=about(0.016, 0.01), host_s=about(0.004), exposed=Estimate(0.02, 0.0, 0.06, 12), bound=DEVICE_BOUND,
        build_s=about(0.001), device_s=about(0.0155, 0.01), chain_s=about(0.0062), stream_s=about(0.0055),
        views=0.40, glue=0.11, swept=True,
    )  # fmt: skip
    return replace(made, **changes)


def m1_ultra(tpot_s: float, build_s: float, chain_s: float, knob: tuple[float, float], **changes: Any) -> Summary:
    """Return the published profile: 92 % GPU-bound with the build hidden, so at most 8 % of host time shows."""
    made = Summary(
        tpot_s=about(tpot_s, 0.01), host_s=about(build_s, 0.1), exposed=Estimate(0.04, 0.0, 0.08, 6),
        bound=DEVICE_BOUND, build_s=about(build_s, 0.1), chain_s=about(chain_s, 0.02),
        views=PUBLISHED_VIEWS, glue=PUBLISHED_GLUE, swept=True,
        knobs=(Tried("MLX_MAX_OPS_PER_BUFFER=1000", *knob),),
    )  # fmt: skip
    return replace(made, **changes)


def test_a_host_that_is_waited_for_justifies_a_fusion() -> None:
    """Host-bound, with half of the nodes views and glue: the careful end of that win is far above what it must be."""
    found = headroom.decide(host_bound())
    assert found.justified == YES
    assert "host-bound" in found.reason
    largest = found.wins[0]
    assert largest.name == "no host work at all"
    assert largest.value == pytest.approx(0.028 / 0.006 - 1)
    assert largest.low == pytest.approx(0.95 * 0.028 / (1.05 * 0.006) - 1)


def test_the_careful_end_charges_views_only_for_building() -> None:
    """Views are not dispatched: they save 51 % of 7 ms to build, and dispatching only its share of glue."""
    found = headroom.decide(host_bound())
    way = next(one for one in found.wins if one.name.startswith("taking views"))
    build, host, tpot = 0.95 * 0.007, 0.95 * 0.027, 0.95 * 0.028
    saved = 0.85 * (build * 0.51 + (host - build) * 0.11 / 0.60)
    assert way.low == pytest.approx(tpot / (tpot - saved) - 1)


def test_a_device_nearly_as_slow_as_the_host_leaves_nothing_to_win() -> None:
    """However much host work goes, the time per token cannot fall below the device's busy time."""
    found = headroom.decide(host_bound(device_s=about(0.0279, 0.001), tpot_s=about(0.028, 0.001)))
    assert found.justified == NO
    assert max(one.high for one in found.wins) < WORTH


def test_a_host_bound_decode_whose_device_time_is_unknown_is_not_called() -> None:
    """Without the device's time the careful end assumes that the device is busy whenever it could be."""
    found = headroom.decide(host_bound(device_s=None, device_most_s=0.028))
    assert found.justified == UNKNOWN
    assert found.settles


def test_a_bandwidth_bound_decode_justifies_none() -> None:
    """The products alone take nearly all of a token: there is nothing besides to remove."""
    found = headroom.decide(device_bound(chain_s=about(0.0155, 0.01), stream_s=about(0.015, 0.01)))
    assert found.justified == NO
    assert "device-bound" in found.reason


def test_a_device_with_gaps_is_not_called_until_something_was_tried() -> None:
    """What is not products might be gaps that glue makes, or might not: no figure of a profile tells."""
    found = headroom.decide(device_bound())
    assert found.justified == UNKNOWN
    assert "duel" in (found.settles or "")
    assert headroom.decide(device_bound(swept=False)).settles != found.settles


@pytest.mark.parametrize(("low", "high", "justified"), [(-0.034, 0.036, NO), (0.06, 0.08, YES), (0.01, 0.09, UNKNOWN)])
def test_what_was_measured_outweighs_what_could_be(low: float, high: float, justified: str) -> None:
    """A fusion's own duel settles what the device's gaps left open, either way, if it is clear itself."""
    tried = Tried("stacked-altup", low, high)
    assert headroom.decide(device_bound(fusions=(tried,))).justified == justified


def test_a_knob_takes_what_a_fusion_would_have_won() -> None:
    """A setting that wins 12 % leaves less than 5 % of what removing glue could win, so it comes first."""
    without = headroom.decide(device_bound())
    knob = Tried("MLX_MAX_OPS_PER_BUFFER=1000", 0.12, 0.13)
    found = headroom.decide(device_bound(knobs=(knob,)))
    assert (without.justified, found.justified) == (UNKNOWN, NO)
    assert "set it and profile again" in found.reason
    assert found.reason.startswith(knob.name)


def test_a_knob_does_not_hide_a_host_that_is_waited_for() -> None:
    """What a setting leaves over is still far above what a fusion must be worth."""
    found = headroom.decide(host_bound(knobs=(Tried("MLX_USE_CUDA_GRAPHS=0", 0.06, 0.08),)))
    assert found.justified == YES
    assert "beyond what MLX_USE_CUDA_GRAPHS=0 gives" in found.reason


def test_a_knob_that_leaves_little_comes_before_a_fusion_on_a_host_bound_chip_too() -> None:
    """Where a setting wins more than the host's views and glue cost, nothing is left for a fusion."""
    slow = host_bound(views=0.05, glue=0.02)
    assert headroom.decide(slow).justified == UNKNOWN
    assert headroom.decide(replace(slow, knobs=(Tried("MLX_A=1", 0.2, 0.3),))).justified == NO


def test_without_the_experiment_nothing_is_said() -> None:
    """Stages have names, and names do not say what is waited for."""
    found = headroom.decide(host_bound(exposed=None))
    assert (found.justified, found.settles) == (UNKNOWN, "--parts split")
    assert headroom.decide(Summary(None, None, None, None)).wins == ()


def test_no_gain_is_negative_or_out_of_order() -> None:
    """Whatever the noise, a bound on a win starts at nothing and its ends are in order."""
    for found in (host_bound(), device_bound(), host_bound(exposed=Estimate(1.2, -0.3, 2.0, 6), bound=MIXED)):
        for one in wins(found):
            assert 0 <= one.low <= one.value <= one.high


@pytest.mark.parametrize(
    ("checkpoint", "summary"),
    [
        # 62.9 tok/s, build 1.09 ms, floor 6.17 ms; the knob 63.0 to 68.4 and 70.0 tok/s.
        ("e4b-4bit", m1_ultra(1 / 62.9, 0.00109, 0.00617, (68.4 / 63.0 - 1, 70.0 / 63.0 - 1))),
        # 83.1 tok/s, build 0.92 ms; 1.363 GB at the published 401 GB/s; the knob 82.7 to 92.5 and 93.2 tok/s.
        ("e2b-4bit", m1_ultra(1 / 83.1, 0.00092, 1.363e9 / 401e9, (92.5 / 82.7 - 1, 93.2 / 82.7 - 1))),
    ],
)
def test_the_published_m1_ultra_is_a_no_because_of_the_knob(checkpoint: str, summary: Summary) -> None:
    """The scheduling knob recovers 9 to 13 %, which is what removing glue could win at most: no fusion there."""
    found = headroom.decide(summary)
    assert found.justified == NO, checkpoint
    assert "MLX_MAX_OPS_PER_BUFFER=1000 gives" in found.reason
    assert headroom.decide(replace(summary, knobs=())).justified == UNKNOWN


def test_the_fusions_measured_on_the_m1_ultra_say_no_as_well() -> None:
    """Together +3.6 %, another one -3.4 to -1.1 %: even without the knob none is worth it."""
    tried = (
        Tried("MLP bridge, compiled gelu_topk, stacked AltUp", 0.036, 0.036),
        Tried("QK norm + RoPE", -0.034, -0.011),
    )
    summary = m1_ultra(1 / 62.9, 0.00109, 0.00617, (0.0, 0.0), knobs=(), fusions=tried)
    assert headroom.decide(summary).justified == NO


def test_the_published_m5_max_is_a_no_by_what_was_tried() -> None:
    """112.2 tok/s, the knob flat within 1.7 %, fusions -6.3 % and then +0.3 to +0.8 %."""
    summary = Summary(
        tpot_s=about(1 / 112.2, 0.01), host_s=about(0.001, 0.2), exposed=Estimate(0.04, 0.0, 0.1, 6),
        bound=DEVICE_BOUND, build_s=about(0.001, 0.2), views=PUBLISHED_VIEWS, glue=PUBLISHED_GLUE, swept=True,
        fusions=(Tried("the same three, first", -0.063, -0.063), Tried("then", 0.003, 0.008)),
    )  # fmt: skip
    assert headroom.decide(summary).justified == NO


def test_a_profile_is_summed_up_as_it_was_measured() -> None:
    """Shares are of the graph's nodes, the stream is bytes over the rate with its ends swapped, wins are knobs."""
    one = workload(
        split=split(0.007, 0.02, 0.001, 0.95, HOST_BOUND), floor=floor(0.0036, 2.5e12), histogram=histogram(),
        trace=trace(0.006), sweep=sweep(),
    )  # fmt: skip
    found = headroom.summarise(one, [Tried("x", 0.0, 0.01)])
    assert (found.views, found.glue) == (0.4, 0.11)
    assert found.stream_s is not None
    assert found.stream_s.low == pytest.approx(0.001 / 1.05)
    assert found.stream_s.high == pytest.approx(0.001 / 0.95)
    assert [one.name for one in found.knobs] == ["MLX_A=1"]
    assert found.device_s == one.trace.busy_s if one.trace else False
    assert found.device_most_s is not None
    assert one.split is not None
    assert found.device_most_s <= one.split.pipelined.tpot_s.high
    assert found.fusions[0].name == "x"


def test_an_empty_profile_is_unknown() -> None:
    """Nothing measured, nothing said."""
    assert headroom.decide(headroom.summarise(workload())).justified == UNKNOWN
