"""Guards the suite's own tests against a command line that was meant for perf/, and brings pytest's own tester."""

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.pytest_arguments import refuse_swallowed_path

pytest_plugins = ("pytester",)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stop ``pytest --benchmark-compare perf/``: with its path swallowed, pytest comes here instead of to perf/."""
    try:
        refuse_swallowed_path(config.getoption("benchmark_compare", None))
    except UsageError as error:
        pytest.exit(str(error), returncode=error.exit_code)
