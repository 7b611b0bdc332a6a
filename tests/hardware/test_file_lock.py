import re
from pathlib import Path

import filelock
import pytest

from gemma3n_perf.errors import MachineBusyError
from gemma3n_perf.hardware.file_lock import locked


def test_what_another_process_is_making_is_waited_for_and_named(tmp_path: Path) -> None:
    """With what it makes and how long; then the lock is free again."""
    path = tmp_path / "one.lock"
    with (
        filelock.FileLock(path, thread_local=False),
        pytest.raises(MachineBusyError) as caught,
        locked(path, 0.1, "building"),
    ):
        pass
    assert "another process has been building for 0 minutes" in str(caught.value)
    assert re.search("remove .*one.lock if that process is gone", str(caught.value))
    with locked(path, 0.1, "building"):
        pass
