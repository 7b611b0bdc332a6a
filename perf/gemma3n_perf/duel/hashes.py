"""Digests of files, remembered between processes: a library of 600 MB is read once, not at each start of an arm."""

import json
import mmap
import os
import re
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import file_digest
from pathlib import Path
from typing import Any

_NAME = re.compile(rb"\0([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?=\0)")
_REMEMBERED_BYTES, _REMEMBERED = 1 << 20, 1000
_RACE_NS = 2_000_000_000


class Hashes:
    """Digests of files. Those of large files are remembered in ``kept``, by what changes when a file is written."""

    def __init__(self, kept: Path) -> None:
        self._kept = kept
        self._known: dict[str, Any] = {}
        self._new = False
        with suppress(OSError, ValueError, TypeError, RecursionError):
            self._known = dict(json.loads(kept.read_bytes())) if kept.is_file() else {}

    def of(self, path: Path) -> str:
        """Return the SHA-256 of a file's content."""

        def content() -> str:
            with path.open("rb") as file:
                return file_digest(file, "sha256").hexdigest()

        return str(self._remembered("sha256", path, content))

    def names(self, path: Path) -> list[str]:
        """Return the strings of a library that could name an environment variable."""

        def strings() -> list[str]:
            if path.stat().st_size == 0:  # which cannot be mapped
                return []
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return sorted({one.decode() for one in _NAME.findall(data)})

        return list(self._remembered("names", path, strings))

    def save(self) -> None:
        """Remember what was found, for other processes; a folder that cannot be written costs time alone."""
        if not self._new:
            return
        with suppress(OSError):
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._kept.parent, prefix=".hashes", delete=False) as file:
                json.dump(dict(list(self._known.items())[-_REMEMBERED:]), file)
            os.replace(file.name, self._kept)

    def _remembered(self, what: str, path: Path, compute: Callable[[], object]) -> Any:
        is_now = path.stat()
        # Two writes within the clock's resolution look the same.
        if is_now.st_size < _REMEMBERED_BYTES or time.time_ns() - is_now.st_mtime_ns < _RACE_NS:
            return compute()
        # Installers link one file into many environments: its path is not what it is known by.
        times = f"{is_now.st_mtime_ns} {is_now.st_ctime_ns}"
        key = f"{what} {is_now.st_dev} {is_now.st_ino} {is_now.st_size} {times}"
        if key not in self._known:
            self._known[key] = compute()
            self._new = True
        return self._known[key]
