"""What is being done: on a terminal one line that is rewritten, elsewhere a line now and then.

What must be read is said everywhere.
"""

import shutil
import time
from contextlib import suppress
from typing import TextIO

LOG_EVERY_S = 5.0
"""In a log, what begins so long after the last line has one of its own: about one a launch, none of a short command."""
_WIDEST = 100


class Progress:
    """Shows on ``out`` what is being done. A stream that cannot be written costs no measurement."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._begin = self._logged = time.monotonic()
        self._width = 0

    def note(self, text: str) -> None:
        """Show ``text``: on a terminal in place of what was shown before."""
        now = time.monotonic()
        line = f"[{now - self._begin:4.0f} s] {text}"
        if self._live:
            # A wrapped line could not be rewritten.
            line = line[: min(_WIDEST, shutil.get_terminal_size().columns - 1)]
            self._write(f"\r{line.ljust(self._width)}")
            self._width = len(line)
        elif now - self._logged >= LOG_EVERY_S:
            self._logged = now
            self._write(f"{line}\n")

    def say(self, text: str) -> None:
        """Write ``text`` as a line of its own, whatever ``out`` is."""
        self.clear()
        self._write(f"{text}\n")

    def clear(self) -> None:
        """Wipe the line."""
        if self._live and self._width:
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._out.write(text)
            self._out.flush()
