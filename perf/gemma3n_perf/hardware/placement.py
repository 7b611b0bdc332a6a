"""Which cores the threads of a process run on.

Cores of a shared host are not alike: each has neighbours of its own, and a thread tends to stay where it is. So two
processes of one program can differ by tens of per cent for as long as they live. Pinned to the same cores, one at a
time, they cannot. Only Linux lets a thread be pinned; elsewhere nothing happens.
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


Place = tuple[frozenset[int], tuple[int, int]]
"""The cores that a thread may run on, and its priority: niceness, and the scheduler's policy."""


def place_of(thread: int) -> Place:
    """Return where a thread may run, and how soon. Raises OSError where it is gone."""
    priority = os.getpriority(os.PRIO_PROCESS, thread), os.sched_getscheduler(thread)
    return frozenset(os.sched_getaffinity(thread)), priority


class Placement:
    """Pins processes that take turns: ``watch()``, let each of them work, ``pin()``.

    The busiest thread of every process goes to the same core, the next busiest to the next, and so on; threads that did
    nothing are left alone.
    """

    def __init__(
        self,
        times: ThreadTimes = thread_times,
        pin_thread: Callable[[int, Set[int]], None] | None = None,
        cores: Sequence[int] | None = None,
        place: Callable[[int], Place] | None = None,
    ) -> None:
        linux = sys.platform == "linux"
        self._times = times
        self._pin_thread = pin_thread or (os.sched_setaffinity if linux else lambda thread, cores: None)
        # Interrupts and daemons prefer the first cores.
        self._cores = sorted(cores if cores is not None else os.sched_getaffinity(0) if linux else (), reverse=True)
        self._before: dict[int, Mapping[int, float]] = {}
        self._place = place or place_of
        self._pinned: dict[int, Place] = {}
        self._busiest: dict[int, int] = {}

    def watch(self, pids: Sequence[int]) -> None:
        """Remember what the threads of these processes have used so far; of a single process, nothing."""
        alone = len(pids) < 2 or not self._cores
        self._before = {} if alone else {pid: self._times(pid) for pid in pids}

    def pin(self) -> bool:
        """Pin what was busy since ``watch()``; says whether any thread of every process is pinned."""
        self._pinned.clear()
        self._busiest.clear()
        pinned = [self._pin(pid, before) for pid, before in self._before.items()]
        return bool(pinned) and all(pinned)

    def was_undone(self) -> bool:
        """Whether a thread that was pinned has other cores now, or another priority."""
        for thread, before in self._pinned.items():
            with suppress(OSError):  # one that has ended was not moved
                if self._place(thread) != before:
                    return True
        return False

    def is_partial(self) -> bool:
        """Whether the busiest threads of the processes have not all the same priority."""
        return len({self._pinned[thread][1] for thread in self._busiest.values()}) > 1

    def _pin(self, pid: int, before: Mapping[int, float]) -> bool:
        used = {thread: now - before.get(thread, 0.0) for thread, now in self._times(pid).items()}
        busy = sorted((thread for thread, seconds in used.items() if seconds > 0), key=lambda one: (-used[one], one))
        pinned = False
        for number, thread in enumerate(busy):
            with suppress(OSError):  # a thread may end at any time, and a sandbox may allow nothing
                self._pin_thread(thread, {self._cores[number % len(self._cores)]})
                pinned = True
                self._pinned[thread] = self._place(thread)
                self._busiest.setdefault(pid, thread)
        return pinned
