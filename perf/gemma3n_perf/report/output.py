"""Standard output as it is: closed by a reader who has seen enough, on a full disk, in ASCII, or not there at all.

An exit code says what a command found, whoever reads its output: ``| head`` must not turn a loss into success, nor
success into a failure. So nothing that is printed can end a command; what could not be written is said at its end.
"""

import errno
import io
import os
import re
import traceback
from typing import Any, TextIO

from gemma3n_perf.errors import NotMeasuredError, PerfError, UsageError, named

_OBEYED = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
"""Control characters but tab and line feed, and those that change the direction of writing."""

_STYLE = r"\x1b\[(?:0?[0-79]|[2-4]\d|9[0-7]|10[0-7])?(?:;(?:0?[0-79]|[2-4]\d|9[0-7]|10[0-7]))*m"
"""What sets colour and weight, as pytest writes it on a terminal, but for hiding text."""

_IN_TEXT = re.compile(_OBEYED)
_IN_STREAM, _IN_PROGRESS = re.compile(f"({_STYLE})|{_OBEYED}"), re.compile(rf"({_STYLE})|(?!\r){_OBEYED}")


class OutputError(NotMeasuredError):
    """What was found could not be written."""


class _TolerantFile(io.FileIO):
    """A file descriptor that takes everything: what cannot be written is dropped, and ``fault`` says why."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.fault: OSError | None = None

    def write(self, data: Any, /) -> int:
        if self.fault is None:
            try:
                return super().write(data)
            except OSError as error:
                self.fault = error
        return len(data)


def plain(text: str) -> str:
    """Return text without what a terminal obeys: names and words of records are anybody's."""
    return _IN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def harmless(text: str, *, returns: bool = False) -> str:
    """Return text for a terminal: colours stay, and ``returns`` to the beginning of the line, of progress."""
    obeyed = _IN_PROGRESS if returns else _IN_STREAM
    return obeyed.sub(lambda found: found[1] or f"\\u{ord(found[0]):04x}", text)


class TolerantStream(io.TextIOWrapper):
    """Text for a file descriptor, in its encoding; what that cannot spell is replaced, what moves a cursor escaped.

    Colours are left to those who write them.
    """

    def __init__(self, stream: TextIO, *, returns: bool = False) -> None:
        self._returns = returns
        self._file = _TolerantFile(stream.fileno())
        super().__init__(
            io.BufferedWriter(self._file), stream.encoding, errors="replace", line_buffering=self._file.isatty()
        )

    def write(self, text: str, /) -> int:
        """Write text as one that no terminal obeys."""
        super().write(harmless(text, returns=self._returns))
        return len(text)

    def finish(self) -> OutputError | None:
        """Write what is left, and return what could not be written; a reader who left is no fault."""
        self.flush()
        fault = self._file.fault
        if fault is None or isinstance(fault, BrokenPipeError):
            return None
        return OutputError(
            f"standard output cannot be written: {fault.strerror or fault}",
            expected="a terminal, a pipe, or a file with room",
            remedy="see where it goes; what was stored is there",
        )


def tolerant(stream: TextIO | None, *, returns: bool = False) -> TextIO:
    """Return standard output that never fails; of none at all (None), one that drops everything.

    Progress ``returns`` to the beginning of its line.
    """
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")
    try:
        return TolerantStream(stream, returns=returns)
    except (OSError, ValueError):  # a replacement, as in a test
        return stream


def unsaid(stream: object) -> OutputError | None:
    """Return what ``stream`` could not write, where it is a tolerant one."""
    return stream.finish() if isinstance(stream, TolerantStream) else None


def shown(error: Exception, err: TextIO | None = None) -> PerfError:
    """Return the named error for this one; for a fault of the program, with its traceback on ``err`` or stderr."""
    found = named(error) or _of_a_path(error)
    if found is None:
        traceback.print_exception(error, file=err)
        found = PerfError(
            f"{type(error).__name__}: {error}",
            expected="a named error: this is a fault of the program, and no result",
            remedy="the traceback says where",
        )
    return found


def _of_a_path(error: Exception) -> PerfError | None:
    """Return the named error for a path that no file can have, and for a working directory that is gone."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return NotMeasuredError(
            "the working directory is not there any more", expected="one that is", remedy="cd to a folder that is there"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return UsageError(f"{error.strerror}: {str(error.filename)[:120]}", expected="a path that a file can have")
    return None
