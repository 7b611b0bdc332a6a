"""A pytest plugin of one hook: bench_profile.py is collected only when it is named, by -k or by its path."""

from pathlib import Path
from typing import Any

import pytest

FILE = "bench_profile.py"


def is_named(keyword: str, arguments: list[str]) -> bool:
    """Whether -k mentions the profile, or an argument is the file itself."""
    return "profile" in keyword or any(Path(argument.partition("::")[0]).name == FILE for argument in arguments)


def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> list[pytest.Item] | None:
    """Collect nothing of the file unless it was named; leave every other file to pytest."""
    if collector.path.name != FILE or not name.startswith("test_"):
        return None
    config = collector.config
    return None if is_named(config.option.keyword or "", list(config.args)) else []
