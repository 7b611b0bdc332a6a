from pathlib import Path

import pytest

from tests.fusions.emulator import Emulator


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """Return a builder of CUDA kernels that run on the CPU."""
    folder: Path = tmp_path_factory.mktemp("kernels")
    return Emulator(folder)
