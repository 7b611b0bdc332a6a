"""How one ``pytest perf/`` session ended, and the exit code that says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma3n_perf.bench.confirmation import ScreenOutcome
from gemma3n_perf.errors import CountsChangedError, InvalidError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.stats.verdicts import Verdict

NO_TESTS_COLLECTED = 5
"""pytest's number, which is that of an invalid comparison here."""

_WORST_FIRST = (
    InvalidError.exit_code,
    CountsChangedError.exit_code,
    UsageError.exit_code,
    NotMeasuredError.exit_code,
    Verdict.INCONCLUSIVE.exit_code,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the exit code of a session rests on.

    ``errors`` are the named errors that were raised, ``failed_tests`` how many of them failed a test.
    ``unfinished`` are the workloads that were selected and not measured.
    ``screen`` is the comparison after its suspicions were put to a duel; None where none was requested.
    """

    errors: Sequence[PerfError] = ()
    failed_tests: int = 0
    unfinished: Sequence[str] = ()
    screen: ScreenOutcome | None = None
    strict: bool = False


def exit_code(outcome: Outcome, pytest_status: int, failures: int) -> int:
    """Exit code: invalid 5, loss or a changed count 1, not measured 4; --strict adds inconclusive 3, no baseline 4.

    ``pytest_status`` stands where more tests failed than named errors explain, or where the session was interrupted.
    A session that selected or finished no decode has not measured it, except where none was selected on purpose.
    """
    if pytest_status == NO_TESTS_COLLECTED:
        return NotMeasuredError.exit_code
    if pytest_status not in (0, 1) or failures > outcome.failed_tests:
        return pytest_status
    codes = {error.exit_code for error in outcome.errors}
    if outcome.unfinished:
        codes.add(NotMeasuredError.exit_code)
    if outcome.screen is not None:
        verdicts = {one.judgement.verdict for one in outcome.screen.compared}
        failing = verdicts if outcome.strict else verdicts & {Verdict.LOSS, Verdict.INVALID}
        codes |= {verdict.exit_code for verdict in failing}
        if outcome.strict and any(one.tripwires for one in outcome.screen.compared):
            codes.add(CountsChangedError.exit_code)
        if outcome.screen.unresolved:
            codes.add(NotMeasuredError.exit_code)
    return next((code for code in _WORST_FIRST if code in codes), 0)
