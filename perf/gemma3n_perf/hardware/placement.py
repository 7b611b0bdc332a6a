"""Which cores the threads of a process run on.

Opinion: cores of a shared host are not alike. Each has neighbours of its own, and a thread tends to stay where it
is, so two processes of one program can differ by tens of per cent for as long as they live. Held on the same cores,
one at a time, they cannot. Linux alone lets a thread be held; elsewhere nothing happens.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress

import psutil

ThreadTimes = Callable[[int], Mapping[int, float]]
"""From a process to seconds of CPU time by thread."""


def thread_times(pid: int) -> dict[int, float]:
    """Seconds of CPU time used by each thread of a process; none where it is gone."""
    try:
        return {one.id: one.user_time + one.system_time for one in psutil.Process(pid).threads()}
    except psutil.Error:
        return {}


class Placement:
    """Holds processes that take turns: ``watch()``, let each of them work, ``hold()``.

    The busiest thread of every process goes to the same core, the next busiest to the next, and so on; threads that did
    nothing are left alone.
    """

    def __init__(
        self,
        times: ThreadTimes = thread_times,
        hold: Callable[[int, Set[int]], None] | None = None,
        cores: Sequence[int] | None = None,
    ) -> None:
        linux = sys.platform == "linux"
        self._times = times
        self._hold = hold or (os.sched_setaffinity if linux else None)
        # Interrupts and daemons prefer the first cores.
        self._cores = sorted(cores if cores is not None else os.sched_getaffinity(0) if linux else (), reverse=True)
        self._before: dict[int, Mapping[int, float]] = {}

    def watch(self, pids: Sequence[int]) -> None:
        """Remember what the threads of these processes have used so far; of a single process, nothing."""
        alone = len(pids) < 2 or self._hold is None or not self._cores
        self._before = {} if alone else {pid: self._times(pid) for pid in pids}

    def hold(self) -> bool:
        """Hold what is busy since ``watch()``; says whether any thread of every process is held."""
        held = {pid: self._held(pid, before) for pid, before in self._before.items()}
        return bool(held) and all(held.values())

    def _held(self, pid: int, before: Mapping[int, float]) -> bool:
        used = {thread: now - before.get(thread, 0.0) for thread, now in self._times(pid).items()}
        busy = sorted((thread for thread, seconds in used.items() if seconds > 0), key=lambda one: (-used[one], one))
        held = False
        for number, thread in enumerate(busy):
            with suppress(OSError):  # a thread may end at any time, and a sandbox may allow nothing
                assert self._hold is not None
                self._hold(thread, {self._cores[number % len(self._cores)]})
                held = True
        return held
