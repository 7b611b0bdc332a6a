"""Where this machine keeps its own sessions: outside any checkout, one folder per chip class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from gemma3n_perf.errors import UsageError
from gemma3n_perf.store.files import Disk, file_stem, write_next
from gemma3n_perf.store.session_file import decode, encode


def data_folder() -> Path:
    """Return the user's data folder of this suite; it need not exist yet."""
    return platformdirs.user_data_path("gemma3n-perf", appauthor=False)


def local_folder(chip_class: str, data: Path | None = None) -> Path:
    """Return the folder of this machine's sessions of a chip class, below ``data`` or the user's own data folder."""
    return (data or data_folder()) / "sessions" / chip_class


def save_session(document: Mapping[str, Any], data: Path | None = None, disk: Disk | None = None) -> Path:
    """Store pytest-benchmark's output, payloads in place, as this machine's next session; returns its path.

    Raises MalformedRecordError where the record could not be read back, UsageError where a slowdown was
    planted, DiskFullError with nothing written.
    """
    content = encode(document)
    session = decode(content, source="this session")
    if session.planted:
        raise UsageError(
            f"a slowdown of {session.planted:.0%} was planted in this session, so it is not saved",
            expected="a session of the code as it is",
            remedy="run again without --plant-slowdown",
        )
    folder = local_folder(session.chip.chip_class, data)
    return write_next(folder, [file_stem(session.stack)], [content], disk)[0]
