"""Processes whose own parent has ended. Linux hands them to a process above them that asks for it; elsewhere none are
known.
"""

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

import psutil

_SET_CHILD_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of Linux's sys/prctl.h."""


class Strays:
    """Takes in what the descendants of this process leave behind. What it has started itself until now is no stray."""

    def __init__(self) -> None:
        self._linux = sys.platform == "linux"
        self._take_in(True)
        self._known = {one.pid for one in _children()} if self._linux else set()

    def close(self) -> None:
        """Take in no more."""
        self._take_in(False)

    def _take_in(self, on: bool) -> None:
        if self._linux:
            import ctypes

            ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, ctypes.c_ulong(on))

    def end(self, ours: Iterable[int]) -> list[str]:
        """Kill the strays, and return their names; ``ours`` and their parents are none, now and later."""
        if not self._linux:
            return []
        for pid in ours:
            self._known.add(pid)
            with suppress(psutil.Error):
                self._known.add(psutil.Process(pid).ppid())
        found = []
        for one in _children():
            with suppress(psutil.Error):
                if one.pid not in self._known and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one.name())
                    os.kill(one.pid, signal.SIGKILL)
        return found


def _children() -> list[psutil.Process]:
    return psutil.Process().children()
