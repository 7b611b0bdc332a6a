from typing import Any

import pytest

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.bench.confirmation import ScreenOutcome
from gemma3n_perf.bench.outcome import NO_TESTS_COLLECTED, Outcome, exit_code
from gemma3n_perf.errors import CountsChangedError, InvalidError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.fakes import measurement


def screen(*verdicts: Verdict, tripwires: tuple[str, ...] = (), unresolved: bool = False) -> ScreenOutcome:
    """Return a comparison that ended in these verdicts."""
    compared = (Compared(measurement(), Judgement(verdict, "x"), tripwires=tripwires) for verdict in verdicts)
    return ScreenOutcome(tuple(compared), unresolved=unresolved)


@pytest.mark.parametrize(
    ("verdicts", "lenient", "strict"),
    [
        ((), 0, 0),
        ((Verdict.NO_CHANGE, Verdict.WIN), 0, 0),
        ((Verdict.INCONCLUSIVE,), 0, 3),
        ((Verdict.NOT_MEASURED,), 0, 4),
        ((Verdict.LOSS, Verdict.NOT_MEASURED), 1, 1),
        ((Verdict.LOSS, Verdict.INVALID), 5, 5),
    ],
)
def test_the_worst_verdict_decides(verdicts: tuple[Verdict, ...], lenient: int, strict: int) -> None:
    """What was not shown fails with --strict alone."""
    assert exit_code(Outcome(screen=screen(*verdicts)), 0, 0) == lenient
    assert exit_code(Outcome(screen=screen(*verdicts), strict=True), 0, 0) == strict


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((UsageError("x"),), 2),
        ((NotMeasuredError("x"), UsageError("x")), 2),
        ((UsageError("x"), CountsChangedError("x")), 1),
        ((CountsChangedError("x"), InvalidError("x")), 5),
    ],
)
def test_the_worst_error_decides(errors: tuple[PerfError, ...], code: int) -> None:
    """Whatever order they came in."""
    assert exit_code(Outcome(errors=errors, failed_tests=len(errors)), 1, len(errors)) == code


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ({"unfinished": ["nano/text/pp40-tg64"]}, 4),
        ({"screen": screen(Verdict.NO_CHANGE, unresolved=True)}, 4),
        ({"screen": screen(Verdict.NO_CHANGE, tripwires=("kv_bytes: 1 -> 2",))}, 0),
        ({"screen": screen(Verdict.NO_CHANGE, tripwires=("kv_bytes: 1 -> 2",)), "strict": True}, 1),
    ],
)
def test_what_is_missing_or_changed_counts(outcome: dict[str, Any], code: int) -> None:
    """Workloads without a measurement, suspicions without a duel; exact figures with --strict."""
    assert exit_code(Outcome(**outcome), 0, 0) == code


def test_pytests_own_code_stands_for_what_no_named_error_explains() -> None:
    """A bug, or Ctrl-C; but that nothing was collected is not-measured."""
    named = Outcome(errors=(InvalidError("x"),), failed_tests=1)
    assert exit_code(named, 1, 1) == 5
    assert exit_code(named, 1, 2) == 1
    assert exit_code(named, 2, 1) == 2
    assert exit_code(Outcome(), NO_TESTS_COLLECTED, 0) == 4
