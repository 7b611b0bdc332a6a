"""What MLX has compiled for arms without fusions, in a folder of the cache: none may change there once it is made."""

import hashlib
import shutil
from contextlib import suppress
from pathlib import Path

FOLDER = "compiled"


class Compiled:
    """Files below the folder of a cache, as they were when last asked about; missing ones are made later."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / FOLDER
        self._seen = self._look()

    def changed(self) -> list[str]:
        """Names of files that were there when this was last asked, and are others now, or gone.

        Where there are any, all are taken away: MLX makes them again, and no later duel is of what was changed.
        """
        seen, self._seen = self._seen, self._look()
        changed = sorted(path.name for path, what in seen.items() if self._seen.get(path) != what)
        if changed:
            for path in self._folder.glob("*"):
                shutil.rmtree(path, ignore_errors=True)
            self._seen = {}
        return changed

    def _look(self) -> dict[Path, bytes]:
        found = {}
        for path in self._folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():  # size and time could be those from before
                    found[path] = hashlib.sha256(path.read_bytes()).digest()
        return found
