"""One line of progress on a terminal, and none anywhere else; what must be read is said everywhere."""

import time
from typing import TextIO


class Progress:
    """Rewrites one line of ``out`` with what is being done; silent where ``out`` is not a terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._begin = time.monotonic()
        self._width = 0

    def note(self, text: str) -> None:
        """Show ``text`` in place of what was shown before."""
        if not self._live:
            return
        line = f"[{time.monotonic() - self._begin:4.0f} s] {text}"[:100]
        self._out.write(f"\r{line.ljust(self._width)}")
        self._out.flush()
        self._width = len(line)

    def say(self, text: str) -> None:
        """Write ``text`` as a line of its own, whatever ``out`` is."""
        self.clear()
        self._out.write(f"{text}\n")
        self._out.flush()

    def clear(self) -> None:
        """Wipe the line."""
        if self._live and self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()
            self._width = 0
