from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.bench.outcome import (
    INTERNAL_ERROR,
    INTERRUPTED,
    NO_TESTS_COLLECTED,
    USAGE_ERROR,
    Outcome,
    accept,
    exit_code,
    in_force,
)
from gemma3n_perf.errors import (
    InconclusiveError,
    InvalidError,
    NotMeasuredError,
    PerfError,
    RegressionError,
    UsageError,
)
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.shell import Done
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from gemma3n_perf.store.accepted import Accepted
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
    ("ttft", "decode", "code"),
    [
        (Verdict.LOSS, Verdict.NO_CHANGE, 1),
        (Verdict.LOSS, Verdict.INCONCLUSIVE, 1),
        (Verdict.LOSS, Verdict.INVALID, 5),
        (Verdict.INCONCLUSIVE, Verdict.NO_CHANGE, 0),
        (Verdict.INVALID, Verdict.NO_CHANGE, 0),
        (Verdict.NOT_MEASURED, Verdict.WIN, 0),
        (Verdict.WIN, Verdict.LOSS, 1),
    ],
)
def test_of_ttft_a_loss_alone_decides(ttft: Verdict, decode: Verdict, code: int) -> None:
    """What cannot be told of it leaves decode its exit code."""
    compared = replace(ended(decode)[0], ttft=Judgement(ttft, "x"))
    assert exit_code(Outcome(compared=(compared,)), 0, 0) == code


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((UsageError("x"),), 2),
        ((NotMeasuredError("x"), UsageError("x")), 2),
        ((UsageError("x"), RegressionError("x")), 1),
        ((RegressionError("x"), InvalidError("x")), 5),
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


def test_what_no_named_error_explains_is_a_fault_of_the_program() -> None:
    """More failed tests than errors, or a hook that failed; Ctrl-C keeps pytest's code, and nothing collected is 4."""
    named = Outcome(errors=(InvalidError("x"),), failed_tests=1)
    assert exit_code(named, 1, 1) == 5
    assert exit_code(named, 1, 2) == 70
    assert exit_code(named, INTERNAL_ERROR, 1) == 70
    assert exit_code(named, INTERRUPTED, 1) == 2
    assert exit_code(Outcome(), NO_TESTS_COLLECTED, 0) == 4
    assert exit_code(Outcome(), USAGE_ERROR, 0) == 4


def test_pytest_ended_with_an_errors_own_code() -> None:
    """5 is pytest's word for nothing collected, and an invalid comparison's here."""
    assert exit_code(Outcome(errors=(InvalidError("x"),), unfinished=["nano"]), 5, 0) == 5
    assert exit_code(Outcome(errors=(NotMeasuredError("x"),)), 4, 0) == 4
    assert exit_code(Outcome(errors=(PerfError("a bug"),)), 70, 0) == 70
    assert exit_code(Outcome(errors=(InconclusiveError("x"),), failed_tests=1), 1, 1) == 3


ACCEPTED = Accepted("sampler", 40 * "a", WORKLOAD, -0.03, "users asked for it")


@pytest.mark.parametrize(
    ("judgement", "rises", "code"),
    [
        (Judgement(Verdict.LOSS, "x", -0.02, -0.025, -0.015), (), 0),
        (Judgement(Verdict.LOSS, "x", -0.035, -0.045, -0.025), (), 0),
        (Judgement(Verdict.LOSS, "x", -0.05, -0.06, -0.04), (), 1),
        (Judgement(Verdict.NO_CHANGE, "x"), ("graph nodes 1 -> 2",), 0),
        (Judgement(Verdict.INCONCLUSIVE, "x"), ("graph nodes 1 -> 2",), 3),
        (Judgement(Verdict.INVALID, "x"), (), 5),
    ],
)
def test_maintainers_accept_risen_counts_and_a_loss_that_is_no_larger(
    judgement: Judgement, rises: tuple[str, ...], code: int
) -> None:
    """Of the workload that their file names, and nothing else of it."""
    one = Compared(WORKLOAD, judgement, rises=rises)
    assert exit_code(Outcome(compared=[accept(one, [ACCEPTED])]), 0, 0) == code
    other = accept(one, [replace(ACCEPTED, workload="nano/text/pp140-tg64")])
    assert other == one


def test_accepted_is_what_lies_between_the_two_commits() -> None:
    """Merged before the comparator, or not in HEAD at all, a change is none of this comparison's."""
    known = {("aaaaaaa", "HEAD"), ("bbbbbbb", "HEAD"), ("bbbbbbb", "base")}

    def git(argv: Sequence[str], timeout_s: float) -> Done:
        return Done(int(tuple(argv[-2:]) not in known), "", "")

    repository = Repository(Path(), git)
    files = [replace(ACCEPTED, commit=7 * letter) for letter in "abc"]
    assert [one.commit for one in in_force(files, repository, "base")] == ["aaaaaaa"]
    assert in_force(files, repository, None) == in_force(files, None, "base") == ()
