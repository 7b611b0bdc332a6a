from pathlib import Path
from typing import Any

import pytest

from tests.decode import fakes
from tests.fusions.emulator import Emulator


@pytest.fixture
def nano(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return nano as mlx-vlm loads it; shared by the process, so fuse only twins of it."""
    return fakes.nano_model(tmp_path_factory.getbasetemp())[1]


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """Return a builder of CUDA kernels that run on the CPU."""
    folder: Path = tmp_path_factory.mktemp("kernels")
    return Emulator(folder)
