import pytest

from tests.pytest_plugin import stage as stages


@pytest.fixture
def stage(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> stages.Stage:
    """Return a checkout with the real plugin in it, on a fake chip, with a bench that is told what to find."""
    return stages.build(pytester, monkeypatch)
