from pathlib import Path
from typing import Any

import pytest

from gemma3n_perf.workload.load import Checkpoint
from tests.decode import fakes


@pytest.fixture
def nano_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder that holds the forged nano; shared, so never write to it."""
    return fakes.nano_root(tmp_path_factory.getbasetemp())


@pytest.fixture
def nano(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Any]:
    """Return nano, inspected and loaded by mlx-vlm's own loader."""
    return fakes.nano_model(tmp_path_factory.getbasetemp())
