"""Standard output as it is: closed by a reader who has seen enough, on a full disk, or not there at all.

An exit code says what a command found, whoever reads its output: ``| head`` must not turn a loss into success, nor
success into a failure.
"""

import io
import os
from typing import Any, TextIO

from gemma3n_perf.errors import NotMeasuredError


class OutputError(NotMeasuredError):
    """What was found could not be written."""


class _TolerantFile(io.FileIO):
    """A file descriptor whose reader may leave: what is written then is dropped, as it is after a reported failure."""

    def __init__(self, descriptor: int, silent: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._silent = silent

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)
        except OSError as error:
            if self._silent:
                return len(data)
            self._silent = True
            raise OutputError(
                f"standard output cannot be written: {error.strerror or error}",
                expected="a terminal, a pipe, or a file with room",
                remedy="see where it goes; what was stored is there",
            ) from error


def tolerant(stream: TextIO | None, *, silent: bool = False) -> TextIO:
    """Return standard output that drops what nobody reads; of none at all (None), one that drops everything.

    Writing raises OutputError where the disk is full, and for whatever else is no closed pipe, unless ``silent``, as
    for standard error: there is nowhere left to say it.
    """
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    try:
        raw = _TolerantFile(stream.fileno(), silent)
    except (OSError, ValueError):  # a replacement, as in a test
        return stream
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding=stream.encoding, errors=stream.errors, line_buffering=raw.isatty())
