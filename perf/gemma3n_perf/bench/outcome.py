"""How one ``pytest perf/`` session ended, and the exit code that says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from gemma3n_perf.bench.comparison import Compared
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
    ``compared`` are the comparisons that were requested; ``alarms`` exact counts that rose where no
    decode was compared.
    """

    errors: Sequence[PerfError] = ()
    failed_tests: int = 0
    unfinished: Sequence[str] = ()
    compared: Sequence[Compared] = ()
    alarms: Sequence[str] = ()


def exit_code(outcome: Outcome, pytest_status: int, failures: int) -> int:
    """Exit code: invalid 5; a loss, or a count that rose without a win, 1; not measured 4; inconclusive 3.

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
    codes |= {one.judgement.verdict.exit_code for one in outcome.compared}
    if outcome.alarms or any(one.is_alarm for one in outcome.compared):
        codes.add(CountsChangedError.exit_code)
    return next((code for code in _WORST_FIRST if code in codes), 0)
