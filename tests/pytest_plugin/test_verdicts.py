"""What a user reads and what the shell gets, for every outcome of ``pytest perf/ --benchmark-compare``."""

from dataclasses import replace
from typing import Any

import pytest

from gemma3n_perf.errors import ArmUnavailableError, BadConditionsError, NonFiniteError, OutOfMemoryError
from tests.fakes import STACK
from tests.pytest_plugin.stage import GRAPH, IMAGE, LONG, TEXT, TPOT_S, Stage

COMPARE = "--benchmark-compare"
SCREEN = (COMPARE, "--no-confirm")
SLOWER = {TEXT: 1.25 * TPOT_S}


def test_plain_session_measures_stores_and_passes(stage: Stage) -> None:
    """Without a comparison every workload has its row, no verdict, and one file is kept."""
    outcome = stage.run()
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 3 not compared"
    assert "100.0" in outcome.line("[", ",") or "100.0" in outcome.text
    assert len(stage.local_files) == 1
    assert stage.script.taken == [name for name in (TEXT, LONG, IMAGE) for _ in range(10)]


@pytest.mark.parametrize(("strict", "code"), [((), 0), (("--strict",), 4)])
def test_no_baseline_is_said_loudly_and_counted(stage: Stage, strict: tuple[str, ...], code: int) -> None:
    """A first session passes but says that nothing was compared; --strict fails it."""
    outcome = stage.run(COMPARE, *strict)
    assert outcome.code == code
    assert "warning: no baseline is committed for chip class cpu-fake-2c" in outcome.text
    assert "nothing was compared" in outcome.text
    assert "gemma3n-perf baseline save" in outcome.text
    assert outcome.closing == "3 workloads: 3 not-measured (3 no baseline)"


def test_local_session_stands_in_and_says_so(stage: Stage) -> None:
    """Without a committed baseline the last local session is compared with, labelled local in every row."""
    stage.run()
    outcome = stage.run(COMPARE)
    assert outcome.code == 0
    assert "this machine's own last sessions stand in" in outcome.text
    assert "change against local 1 session" in outcome.text
    assert outcome.out.count("(local)") == 3
    assert outcome.closing == "3 workloads: 3 inconclusive"


def test_unchanged_code_passes(stage: Stage) -> None:
    """The same speed as five steady sessions is no-change, and no warning is printed."""
    stage.commit()
    outcome = stage.run(COMPARE, "--strict")
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 3 no-change"
    assert "change against committed 5 sessions" in outcome.text
    assert "warning:" not in outcome.out


def test_loss_fails_and_names_the_workload(stage: Stage) -> None:
    """A quarter slower is exit 1 with the workload's name, its change and the way on."""
    stage.commit()
    stage.script.tpot_s = SLOWER
    outcome = stage.run(*SCREEN)
    assert outcome.code == 1
    assert outcome.closing == "3 workloads: 1 loss, 2 no-change"
    assert f"warning: {TEXT}: loss: " in outcome.text
    assert "-20.0 %" in outcome.out
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize(("strict", "code"), [((), 0), (("--strict",), 3)])
def test_noisy_sessions_leave_it_open(stage: Stage, strict: tuple[str, ...], code: int) -> None:
    """Where sessions differ by 8 %, 3 % slower is inconclusive: said and counted, and failed by --strict alone."""
    stage.commit(spread=0.08)
    stage.script.tpot_s = {TEXT: 1.03 * TPOT_S}
    outcome = stage.run(COMPARE, *strict)
    assert outcome.code == code
    assert outcome.closing == "3 workloads: 3 inconclusive"
    assert f"{TEXT}: inconclusive: " in outcome.text


def test_win_is_never_claimed(stage: Stage) -> None:
    """Twice as fast is still inconclusive: only a duel shows a win."""
    stage.commit()
    stage.script.tpot_s = {TEXT: 0.5 * TPOT_S}
    outcome = stage.run(COMPARE)
    assert outcome.code == 0
    assert outcome.closing == "3 workloads: 2 no-change, 1 inconclusive"
    assert "only a duel can show a win" in outcome.text
    assert "+100.0 %" in outcome.out


@pytest.mark.parametrize(("strict", "code"), [((), 0), (("--strict",), 4)])
def test_workload_missing_from_the_baseline_is_counted(stage: Stage, strict: tuple[str, ...], code: int) -> None:
    """A workload that the baseline never measured does not pass silently."""
    stage.commit(workloads=(TEXT, LONG))
    outcome = stage.run(COMPARE, *strict)
    assert outcome.code == code
    assert outcome.closing == "3 workloads: 2 no-change, 1 not-measured (1 no baseline)"
    assert f"warning: {IMAGE}: not-measured: this workload has no stored session" in outcome.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"token_digest": "tokens:2"}, "the greedy tokens differ from the baseline's"),
        ({"checkpoint_digest": "forged:2"}, "checkpoint bytes differ: forged:2 here, forged:1 in the baseline"),
        ({"engine": "other"}, "engine differ: other here, mlx_vlm in the baseline"),
    ],
)
def test_what_cannot_be_compared_is_invalid(stage: Stage, change: dict[str, Any], said: str) -> None:
    """Other tokens, bytes or engine end in exit 5, even beside a loss."""
    stage.commit()
    stage.script.tpot_s = {LONG: 2 * TPOT_S}
    stage.script.changes = {TEXT: change}
    outcome = stage.run(*SCREEN)
    assert outcome.code == 5
    assert said in outcome.text
    assert outcome.closing == "3 workloads: 1 invalid, 1 loss, 1 no-change"


def test_changed_graph_fails_before_any_timing(stage: Stage) -> None:
    """One more matmul is exit 1, with before and after and no traceback, in the first test that runs."""
    stage.commit()
    stage.script.graph = replace(GRAPH, operations={"QuantizedMatmul": 75})
    outcome = stage.run(COMPARE, "-x")
    assert outcome.code == 1
    assert f"{TEXT}: exact counts changed: operations.QuantizedMatmul: 74 -> 75" in outcome.text
    assert "expected: what the baseline of 0123456789ab recorded" in outcome.text
    assert stage.script.opened == 0
    assert "Traceback" not in outcome.text
    assert "pytest_session.py" not in outcome.text


@pytest.mark.parametrize(("strict", "code"), [((), 0), (("--strict",), 1)])
def test_changed_graph_of_another_mlx_is_a_warning(stage: Stage, strict: tuple[str, ...], code: int) -> None:
    """Another mlx may count otherwise: it is said with both versions, and only --strict fails it."""
    stage.commit()
    stage.stack = replace(STACK, mlx="0.33.0")
    stage.script.graph = replace(GRAPH, operations={"QuantizedMatmul": 75})
    outcome = stage.run(COMPARE, *strict)
    assert outcome.code == code
    assert "exact counts changed: operations.QuantizedMatmul: 74 -> 75" in outcome.text
    assert "measured with mlx 0.32.4" in outcome.text
    assert "this session with mlx 0.33.0" in outcome.text


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"kv_bytes": 2_000_001}, 1),
        ({"peak_memory_bytes": 551_000_000}, 1),
        ({"peak_memory_bytes": 549_000_000}, 0),
    ],
)
def test_changed_memory_fails(stage: Stage, change: dict[str, int], code: int) -> None:
    """KV bytes are exact, peak memory to a tenth."""
    stage.commit()
    stage.script.changes = {LONG: change}
    outcome = stage.run(COMPARE)
    assert outcome.code == code
    name = next(iter(change))
    assert (f"{LONG}: exact counts changed: {name}: " in outcome.text) == bool(code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadConditionsError("7 runs were discarded (steal x7)", remedy="measure when its neighbours are quiet"), 4),
        (OutOfMemoryError("it ran out of memory"), 4),
        (NonFiniteError("3 tensors hold NaN or infinity"), 5),
    ],
)
def test_failed_workload_has_its_reason_and_others_their_verdict(
    stage: Stage, error: BadConditionsError | OutOfMemoryError | NonFiniteError, code: int
) -> None:
    """One workload that cannot be measured sets the exit code; its baseline is not said to be missing."""
    stage.commit()
    stage.script.raises = {LONG: error}
    outcome = stage.run(COMPARE)
    assert outcome.code == code
    assert outcome.closing == "3 workloads: 2 no-change, 1 not-measured"
    assert f"{LONG}: {error.found}" in outcome.text
    assert "Traceback" not in outcome.text
    assert "stage.py" not in outcome.text
    assert "change against committed 5 sessions" in outcome.text


def test_failure_of_another_kind_stays_pytests_own(stage: Stage) -> None:
    """A bug shows its traceback and pytest's exit code, whatever named errors stand beside it."""
    stage.script.raises = {LONG: ValueError("a bug"), TEXT: OutOfMemoryError("it ran out of memory")}
    outcome = stage.run()
    assert outcome.code == 1
    assert "ValueError: a bug" in outcome.text
    assert outcome.closing == "3 workloads: 2 not-measured, 1 not compared"


def test_exit_code_names_the_worst(stage: Stage) -> None:
    """A loss outranks a workload that was not measured."""
    stage.commit()
    stage.script.tpot_s = SLOWER
    stage.script.raises = {LONG: OutOfMemoryError("it ran out of memory")}
    outcome = stage.run(*SCREEN)
    assert outcome.code == 1
    assert outcome.closing == "3 workloads: 1 loss, 1 no-change, 1 not-measured"


def test_skipped_benchmarks_are_not_measured(stage: Stage) -> None:
    """pytest-benchmark's own --benchmark-skip leaves nothing to pass."""
    outcome = stage.run(COMPARE, "--benchmark-skip", "-k", "decode")
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 3 not-measured"
    assert stage.local_files == []


@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_suspicion_that_no_duel_could_look_into_is_not_a_loss(stage: Stage, strict: tuple[str, ...]) -> None:
    """Where the baseline's own arm cannot be built, the exit code says not-measured and the row says why."""
    stage.commit()
    stage.script.tpot_s = SLOWER
    stage.script.duel = ArmUnavailableError("mlx 0.32.4 cannot be had offline", remedy="go online")
    outcome = stage.run(COMPARE, *strict)
    assert outcome.code == 4
    assert outcome.closing == "3 workloads: 2 no-change, 1 not-measured"
    assert "not confirmed, for the duel gave no answer" in outcome.text
    assert "mlx 0.32.4 cannot be had offline" in outcome.text
    assert len(stage.local_files) == 1
