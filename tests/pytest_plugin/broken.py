"""A pytest plugin with a fault (``-p tests.pytest_plugin.broken``), for what the suite makes of those."""


def pytest_runtestloop() -> None:
    """Fail as no test does."""
    raise ZeroDivisionError("a hook that fails")
