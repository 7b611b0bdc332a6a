"""What ends ``pytest perf/`` from outside: SIGTERM and SIGHUP, as Ctrl-C does, so that what was shown is told."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALLED = 128


@dataclass(slots=True)
class Received:
    """The last signal that interrupted, 0 for none."""

    number: int = 0

    def exit_code(self, code: int) -> int:
        """Return the exit code, a shell's of the signal where one was received, and say so on standard error."""
        if not self.number:
            return code
        print(f"gemma3n-perf: ended by {signal.Signals(self.number).name}", file=sys.stderr)
        return _SIGNALLED + self.number


@contextmanager
def interrupted_by_signals() -> Iterator[Received]:
    """Raise KeyboardInterrupt in the main thread where SIGTERM or SIGHUP would end this process with nothing told.

    A signal that is ignored, as under nohup, stays so; another thread changes nothing.
    """
    received = Received()

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.number = number
        raise KeyboardInterrupt

    ours = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    before = {one: signal.getsignal(one) for one in ours if signal.getsignal(one) is not signal.SIG_IGN}
    try:
        for one in before:
            signal.signal(one, interrupt)
        yield received
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
