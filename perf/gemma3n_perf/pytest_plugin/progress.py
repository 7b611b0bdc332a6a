"""Where a session shows what it is doing: standard error, past pytest's capture."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TextIO, cast

import pytest

from gemma3n_perf.report.output import harmless


class _Uncaptured:
    """Standard error as it is without capture, on lines of its own: pytest's begun one is ended first."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager
        self._left = 0

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        capture = self._plugins.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
            yield sys.stderr

    def isatty(self) -> bool:
        with self._opened() as err:
            return err.isatty()

    def write(self, text: str) -> int:
        if not (self._left or text.strip()):
            return len(text)  # of a line that pytest has gone on with, nothing is to be wiped
        terminal = self._plugins.get_plugin("terminalreporter")
        with self._opened() as err:
            if terminal is not None:
                terminal.ensure_newline()
                terminal.flush()
            written = err.write(harmless(text, returns=True))
            err.flush()
        self._left = len(text.rsplit("\n", 1)[-1].strip("\r"))
        return written

    def flush(self) -> None:
        """Do nothing: what is written is written at once."""

    def wipe(self) -> None:
        """Wipe what was left on an open line."""
        if self._left:
            self.write("\r" + " " * self._left + "\r")
            self._left = 0


_STREAM = pytest.StashKey[_Uncaptured]()


def uncaptured(config: pytest.Config) -> TextIO:
    """Return standard error for progress, which reaches its reader while pytest captures what tests print."""
    return cast("TextIO", config.stash.setdefault(_STREAM, _Uncaptured(config)))


def wipe(config: pytest.Config) -> None:
    """Leave the line to pytest."""
    config.stash.setdefault(_STREAM, _Uncaptured(config)).wipe()


def say(config: pytest.Config, *lines: str) -> None:
    """Write lines among pytest's own, where it writes any."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.ensure_newline()
        for line in lines:
            terminal.write_line(line)
