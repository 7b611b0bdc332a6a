"""Guards the suite's own tests against a command line that was meant for perf/, and brings pytest's own tester."""

from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.pytest_plugin.options import refuse_swallowed_path
from gemma3n_perf.workload.load import Checkpoint
from tests.decode import fakes

pytest_plugins = ("pytester",)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Stop ``pytest --benchmark-compare perf/``: with its path swallowed, pytest comes here instead of to perf/."""
    try:
        refuse_swallowed_path(config.getoption("benchmark_compare", None))
    except UsageError as error:
        pytest.exit(str(error), returncode=error.exit_code)


@pytest.fixture
def nano_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the forged nano; shared, so never write to it."""
    return fakes.nano_root(tmp_path_factory.getbasetemp())


@pytest.fixture
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Any]:
    """Return nano, inspected and loaded by mlx-vlm's own loader."""
    return fakes.nano_model(tmp_path_factory.getbasetemp())


@pytest.fixture
def nano_model(nano: tuple[Checkpoint, Any]) -> Any:
    """Return nano as mlx-vlm loads it; shared by the process, so fuse only twins of it."""
    return nano[1]
