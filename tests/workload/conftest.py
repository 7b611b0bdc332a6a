from pathlib import Path

import pytest

from tests.decode import fakes


@pytest.fixture
def nano_copy(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """Return a copy of nano to be damaged."""
    return fakes.nano_copy(tmp_path_factory.getbasetemp(), tmp_path / "nano-copy")
