"""The end of a session: what other plugins write then, and what is stored and judged after it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gemma3n_perf.bench.outcome import INTERRUPTED
from gemma3n_perf.errors import NotMeasuredError, named
from gemma3n_perf.pytest_plugin.session import SuiteSession
from gemma3n_perf.report.output import shown
from gemma3n_perf.stats.verdicts import Caution


@contextmanager
def finishing(suite: SuiteSession, session: pytest.Session, exitstatus: int) -> Iterator[None]:
    """Finish after what others do inside; a report of theirs that cannot be written (--junitxml) costs no answer."""
    try:
        yield
    except OSError as error:
        found = named(error) or NotMeasuredError(
            f"a report that was asked for cannot be written: {error}",
            remedy="see that its folder is there, and writable",
        )
        suite.failed(found)
    finally:
        _finish(suite, session, interrupted=exitstatus == INTERRUPTED)


def _finish(suite: SuiteSession, session: pytest.Session, *, interrupted: bool) -> None:
    suite.failures, suite.interrupted = session.testsfailed, interrupted
    if suite.interrupted and suite.will_duel and not suite.comparing.over:
        found = "interrupted before the duel was over: what it had not shown yet is open"
        suite.cautions.append(Caution("interrupted", found, "run it again"))
    try:
        suite.finish(session.config)
    except Exception as error:
        suite.failed(shown(error))
