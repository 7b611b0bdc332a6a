from dataclasses import replace
from typing import Any

import pytest

from gemma3n_perf.bench.comparison import Compared, compare, same_class, tripwires
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.errors import NotComparableError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.types import COMMITTED, Baseline, Session
from tests.fakes import CHIP, STACK, WORKLOAD, measurement

OTHER = "nano/text/pp140-tg64"
THIRD = "nano/text/pp4-tg4"
GRAPH = Graph({"rope": 4}, {"QuantizedMatmul": 9, "Add": 3}, {"float32": 12}, 12, {"streamed": 100})
TIMES = (0.00999, 0.01, 0.01001, 0.01, 0.009995)


def baseline(times: dict[str, tuple[float, ...]] | None = None, stack: Stack = STACK, **changes: Any) -> Baseline:
    """Return a committed baseline of sessions with these seconds per token by workload."""
    times = times or {WORKLOAD: TIMES}
    count = max(len(one) for one in times.values())
    sessions = tuple(
        Session(
            f"s{index}", CHIP, stack, 0.0, "2026-07-01T10:00:00+00:00",
            tuple(measurement(name, one[index], **changes) for name, one in times.items() if index < len(one)),
        )
        for index in range(count)
    )  # fmt: skip
    return Baseline(CHIP, stack, sessions, COMMITTED, tuple(f"000{index}_x.json" for index in range(count)))


def judged(*measured: Any, against: Baseline | None, stack: Stack = STACK) -> dict[str, Compared]:
    """Compare and return by workload."""
    return {one.measurement.workload: one for one in compare(measured, against, stack, Policy())}


def test_another_chip_class_is_refused() -> None:
    """Absolute numbers of two chips are never put side by side."""
    same_class(CHIP, baseline())
    with pytest.raises(NotComparableError, match="cpu-other-8c") as caught:
        same_class(replace(CHIP, chip_class="cpu-other-8c"), baseline())
    assert caught.value.exit_code == 5
    assert caught.value.remedy


def test_same_speed_is_no_change() -> None:
    """A session among the stored ones is shown to be unchanged, and says what it was compared with."""
    one = judged(measurement(), against=baseline())[WORKLOAD]
    assert one.judgement.verdict is Verdict.NO_CHANGE
    assert one.label == "committed 5 sessions"
    assert one.tripwires == ()
    assert one.cautions == ()


def test_order_is_kept() -> None:
    """Results come in the order measured, whatever their verdict."""
    against = baseline({WORKLOAD: TIMES, THIRD: TIMES})
    measured = (measurement(OTHER), measurement(THIRD, checkpoint_digest="forged:2"), measurement(WORKLOAD))
    assert [one.measurement.workload for one in compare(measured, against, STACK, Policy())] == [
        OTHER,
        THIRD,
        WORKLOAD,
    ]


@pytest.mark.parametrize(("tpot_s", "verdict"), [(0.012, Verdict.LOSS), (0.008, Verdict.INCONCLUSIVE)])
def test_screen_suspects_a_loss_and_claims_no_win(tpot_s: float, verdict: Verdict) -> None:
    """Slower is a loss; faster by as much is left to a duel, its interval kept."""
    judgement = judged(measurement(tpot_s=tpot_s), against=baseline())[WORKLOAD].judgement
    assert judgement.verdict is verdict
    assert judgement.low is not None
    assert judgement.high is not None
    assert judgement.effect == pytest.approx(0.01 / tpot_s - 1, abs=0.01)
    if tpot_s < 0.01:
        assert judgement.low > 0.2
        assert "only a duel can show a win" in judgement.reason


def test_without_a_baseline_nothing_is_claimed() -> None:
    """No baseline, or none of this workload, is not-measured and carries no label."""
    assert judged(measurement(), against=None)[WORKLOAD].judgement.verdict is Verdict.NOT_MEASURED
    one = judged(measurement(OTHER), against=baseline())[OTHER]
    assert one.judgement.verdict is Verdict.NOT_MEASURED
    assert one.judgement.effect is None
    assert one.label == ""


def test_one_stored_session_judges_nothing_alone() -> None:
    """Without any spread between sessions even twice as slow stays inconclusive."""
    one = judged(measurement(tpot_s=0.02), against=baseline({WORKLOAD: TIMES[:1]}))[WORKLOAD]
    assert one.judgement.verdict is Verdict.INCONCLUSIVE
    assert one.judgement.low is None


def test_spread_is_the_classes() -> None:
    """A workload with one stored session borrows the spread of the others."""
    against = baseline({WORKLOAD: TIMES, OTHER: TIMES[:1]})
    one = judged(measurement(OTHER, 0.02), against=against)[OTHER]
    assert one.judgement.verdict is Verdict.LOSS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpoint_digest": "forged:2"}, "checkpoint bytes differ: forged:2 here, forged:1 in the baseline"),
        ({"prompt_tokens": 41}, "prompt tokens differ: 41 here, 40 in the baseline"),
        ({"generated_tokens": 63}, "generated tokens differ: 63 here, 64 in the baseline"),
        ({"engine": "mlx_lm"}, "engine differ: mlx_lm here, mlx_vlm in the baseline"),
        ({"soft_tokens": "vision tower"}, "soft tokens differ: vision tower here, None in the baseline"),
        ({"token_digest": "tokens:2"}, "the greedy tokens differ from the baseline's on the same mlx and mlx-vlm"),
    ],
)
def test_unlike_measurements_are_invalid(change: dict[str, Any], said: str) -> None:
    """What no statistics excuse is invalid, with no effect stated, however equal the times."""
    one = judged(measurement(**change), against=baseline())[WORKLOAD]
    assert one.judgement.verdict is Verdict.INVALID
    assert said in one.judgement.reason


@pytest.mark.parametrize("change", [{"mlx": "0.33.0"}, {"mlx_vlm": "0.8.0"}, {"backend": "cuda"}])
def test_other_stack_may_decode_other_tokens(change: dict[str, Any]) -> None:
    """Another mlx, mlx-vlm or backend is compared, with a caution that names both, and may round otherwise."""
    one = judged(measurement(token_digest="tokens:2"), against=baseline(), stack=replace(STACK, **change))[WORKLOAD]
    assert one.judgement.verdict is Verdict.NO_CHANGE
    assert [caution.code for caution in one.cautions] == ["stack-differs"]


def test_other_stack_still_needs_the_same_checkpoint() -> None:
    """Another mlx excuses tokens, never other bytes."""
    one = judged(measurement(checkpoint_digest="x"), against=baseline(), stack=replace(STACK, mlx="0.33.0"))[WORKLOAD]
    assert one.judgement.verdict is Verdict.INVALID


def _doubtful(times: dict[str, tuple[float, ...]]) -> float:
    """Return seconds per token that alone are a loss by little: the screen's own interval ends just below."""
    low, high = 0.01, 0.02
    for _ in range(40):
        middle = (low + high) / 2
        one = judged(measurement(tpot_s=middle), against=baseline({WORKLOAD: times[WORKLOAD]}))[WORKLOAD]
        low, high = (low, middle) if one.judgement.verdict is Verdict.LOSS else (middle, high)
    return 1.0005 * high


def test_family_pays_for_its_size() -> None:
    """A loss that one workload alone just shows is not shown among three that show nothing (Holm)."""
    noisy = tuple(0.01 * factor for factor in (0.97, 0.985, 1.0, 1.015, 1.03))
    times = {WORKLOAD: noisy, OTHER: noisy, THIRD: noisy}
    tpot_s = _doubtful(times)
    alone = judged(measurement(tpot_s=tpot_s), against=baseline({WORKLOAD: noisy}))[WORKLOAD]
    among = judged(measurement(tpot_s=tpot_s), measurement(OTHER), measurement(THIRD), against=baseline(times))
    assert alone.judgement.verdict is Verdict.LOSS
    assert among[WORKLOAD].judgement.level == pytest.approx(1 - 0.05 / 3)
    assert among[OTHER].judgement.verdict is Verdict.INCONCLUSIVE


def test_family_leaves_out_what_claims_nothing() -> None:
    """Workloads without a stored session, or invalid, take no share of the family's error."""
    noisy = {WORKLOAD: tuple(0.01 * factor for factor in (0.97, 0.985, 1.0, 1.015, 1.03))}
    tpot_s = _doubtful(noisy)
    measured = (measurement(tpot_s=tpot_s), measurement(OTHER), measurement(THIRD))
    found = judged(*measured, against=baseline(noisy))
    assert found[WORKLOAD].judgement.verdict is Verdict.LOSS
    assert found[WORKLOAD].judgement.level == pytest.approx(0.95)


def test_shown_losses_leave_the_family() -> None:
    """Holm steps down: once the clear loss is shown, the doubtful one is judged among fewer."""
    noisy = tuple(0.01 * factor for factor in (0.97, 0.985, 1.0, 1.015, 1.03))
    found = judged(
        measurement(tpot_s=0.05), measurement(OTHER, 0.0101), against=baseline({WORKLOAD: noisy, OTHER: noisy})
    )
    assert found[WORKLOAD].judgement.level == pytest.approx(0.975)
    assert found[OTHER].judgement.level == pytest.approx(0.95)


def test_exact_differences_are_listed_whatever_the_stack() -> None:
    """Counts and bytes that differ stand beside the verdict, before and after."""
    today = measurement(graph=replace(GRAPH, operations={"QuantizedMatmul": 10, "Add": 3}), kv_bytes=1)
    one = judged(today, against=baseline(graph=GRAPH), stack=replace(STACK, mlx="0.33.0"))[WORKLOAD]
    assert one.tripwires == ("operations.QuantizedMatmul: 9 -> 10", "kv_bytes: 2000000 -> 1")
    assert one.judgement.verdict is Verdict.NO_CHANGE


@pytest.mark.parametrize(
    ("graph", "line"),
    [
        (replace(GRAPH, calls={"rope": 5}), "calls.rope: 4 -> 5"),
        (replace(GRAPH, operations={"QuantizedMatmul": 9}), "operations.Add: 3 -> 0"),
        (replace(GRAPH, dtypes={"float32": 11, "bfloat16": 1}), "dtypes.bfloat16: 0 -> 1"),
        (replace(GRAPH, bytes={"streamed": 101}), "bytes.streamed: 100 -> 101"),
    ],
)
def test_planted_graph_changes_are_caught(graph: Graph, line: str) -> None:
    """A call more, an operation gone, a promoted type and a byte more are each named, with no timing."""
    assert line in tripwires(measurement(graph=graph), measurement(graph=GRAPH))
    assert tripwires(measurement(graph=GRAPH), measurement(graph=GRAPH)) == ()


def test_memory_is_exact_but_for_the_allocator() -> None:
    """Peak memory may move by a tenth, in either direction; a record without a peak says nothing of it."""
    then = measurement(peak_memory_bytes=1_000_000)
    assert tripwires(measurement(peak_memory_bytes=1_099_000), then) == ()
    assert tripwires(measurement(peak_memory_bytes=1_101_000), then) == ("peak_memory_bytes: 1000000 -> 1101000",)
    assert tripwires(measurement(peak_memory_bytes=899_000), then) == ("peak_memory_bytes: 1000000 -> 899000",)
    assert tripwires(measurement(), measurement(peak_memory_bytes=0)) == ()


def test_record_without_a_graph_trips_nothing() -> None:
    """An older record that counted no graph is no changed graph."""
    assert tripwires(measurement(graph=GRAPH), measurement()) == ()
