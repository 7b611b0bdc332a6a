"""How one ``pytest perf/`` session ended, and the exit code that says so."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.errors import InvalidError, NotMeasuredError, PerfError, RegressionError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.accepted import Accepted

INTERRUPTED, INTERNAL_ERROR, USAGE_ERROR, NO_TESTS_COLLECTED = 2, 3, 4, 5
"""pytest's numbers; but for the first they are those of verdicts here."""

_WORST_FIRST = (
    PerfError.exit_code,
    InvalidError.exit_code,
    RegressionError.exit_code,
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
    """Exit code: fault 70; invalid 5; a loss, of TTFT too, or a count that rose, 1; not measured 4; inconclusive 3.

    A fault is what no named error explains: more failed tests than those, or an error of a hook. An interrupted session
    keeps pytest's 2. One that selected or finished no decode has not measured it, except where none was selected on
    purpose.
    """
    if pytest_status == INTERRUPTED:
        return pytest_status
    codes = {error.exit_code for error in outcome.errors}
    if pytest_status == INTERNAL_ERROR or failures > outcome.failed_tests:
        codes.add(PerfError.exit_code)
    if outcome.unfinished or (pytest_status in (USAGE_ERROR, NO_TESTS_COLLECTED) and not outcome.errors):
        codes.add(NotMeasuredError.exit_code)
    codes |= {one.judgement.verdict.exit_code for one in outcome.compared if not one.is_accepted}
    if outcome.alarms or any(one.is_alarm or one.is_slower_to_start for one in outcome.compared):
        codes.add(RegressionError.exit_code)
    return next((code for code in _WORST_FIRST if code in codes), 0)


def in_force(found: Sequence[Accepted], repository: Repository | None, base: str | None) -> tuple[Accepted, ...]:
    """Return what is accepted of the changes between the commit ``base`` and HEAD; nothing where either is unknown."""
    if repository is None or base is None:
        return ()
    return tuple(
        one for one in found if repository.is_ancestor(one.commit) and not repository.is_ancestor(one.commit, base)
    )


def accept(compared: Compared, accepted: Sequence[Accepted]) -> Compared:
    """Return the comparison with the maintainers' file of its workload, the one that accepts most."""
    ours = sorted((one for one in accepted if one.workload == compared.workload), key=lambda one: one.effect)
    return replace(compared, accepted=ours[0]) if ours else compared
