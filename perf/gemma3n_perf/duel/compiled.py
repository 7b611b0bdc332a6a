"""What MLX has compiled for arms without fusions, in a folder of the cache: none may change there once it is made."""

import hashlib
from contextlib import suppress
from pathlib import Path

FOLDER = "compiled"


class Compiled:
    """Files below the folder of a cache, as they were when last asked about; missing ones are made later."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / FOLDER
        self._seen = self._look()

    def changed(self) -> list[str]:
        """Names of files that were there when this was last asked, and are others now, or gone."""
        seen, self._seen = self._seen, self._look()
        return sorted(path.name for path, what in seen.items() if self._seen.get(path) != what)

    def _look(self) -> dict[Path, bytes]:
        found = {}
        for path in self._folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():  # size and time could be those from before
                    found[path] = hashlib.sha256(path.read_bytes()).digest()
        return found
