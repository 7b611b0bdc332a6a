from typing import Any

import pytest

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.bench.outcome import NO_TESTS_COLLECTED, Outcome, exit_code
from gemma3n_perf.errors import CountsChangedError, InvalidError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.fakes import WORKLOAD


def ended(*verdicts: Verdict, rises: tuple[str, ...] = ()) -> tuple[Compared, ...]:
    """Return comparisons that ended in these verdicts."""
    return tuple(Compared(WORKLOAD, Judgement(verdict, "x"), rises=rises) for verdict in verdicts)


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ((), 0),
        ((Verdict.NO_CHANGE, Verdict.WIN), 0),
        ((Verdict.INCONCLUSIVE, Verdict.WIN), 3),
        ((Verdict.NOT_MEASURED, Verdict.INCONCLUSIVE), 4),
        ((Verdict.LOSS, Verdict.NOT_MEASURED), 1),
        ((Verdict.LOSS, Verdict.INVALID), 5),
    ],
)
def test_the_worst_verdict_decides(verdicts: tuple[Verdict, ...], code: int) -> None:
    """As for every command."""
    assert exit_code(Outcome(compared=ended(*verdicts)), 0, 0) == code


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
        ({"compared": ended(Verdict.NO_CHANGE, rises=("graph nodes 1 -> 2",))}, 1),
        ({"compared": ended(Verdict.INCONCLUSIVE, rises=("graph nodes 1 -> 2",))}, 1),
        ({"compared": ended(Verdict.WIN, rises=("graph nodes 1 -> 2",))}, 0),
        ({"alarms": ["graph nodes 1 -> 2"]}, 1),
    ],
)
def test_what_is_missing_or_rose_counts(outcome: dict[str, Any], code: int) -> None:
    """Workloads without a measurement; exact counts that rose without a win."""
    assert exit_code(Outcome(**outcome), 0, 0) == code


def test_pytests_own_code_stands_for_what_no_named_error_explains() -> None:
    """A bug, or Ctrl-C; but that nothing was collected is not-measured."""
    named = Outcome(errors=(InvalidError("x"),), failed_tests=1)
    assert exit_code(named, 1, 1) == 5
    assert exit_code(named, 1, 2) == 1
    assert exit_code(named, 2, 1) == 2
    assert exit_code(Outcome(), NO_TESTS_COLLECTED, 0) == 4
