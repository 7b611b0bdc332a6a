import os
import subprocess
import sys
import time
from collections.abc import Set

import psutil
import pytest

from gemma3n_perf.hardware.placement import Placement, thread_times


class Threads:
    """Threads of processes: what each has used, and the cores they are pinned to."""

    def __init__(self, *used: dict[int, dict[int, float]], gone: Set[int] = frozenset()) -> None:
        self.readings = list(used)
        self.gone = gone
        self.pinned: dict[int, Set[int]] = {}

    def times(self, pid: int) -> dict[int, float]:
        """Return the present reading of a process."""
        return self.readings[0][pid]

    def pin(self, thread: int, cores: Set[int]) -> None:
        """Keep where a thread is pinned; one that is gone cannot be."""
        if thread in self.gone:
            raise ProcessLookupError(thread)
        self.pinned[thread] = cores

    def placed(self, *pids: int, cores: tuple[int, ...] = (0, 1)) -> bool:
        """Watch, work, pin."""
        placement = Placement(self.times, self.pin, cores)
        placement.watch(pids)
        self.readings.pop(0)
        return placement.pin()


def test_the_busiest_threads_of_all_processes_share_a_core() -> None:
    """By what they used since they were watched, not since they began; idle threads go where they like."""
    threads = Threads(
        {1: {10: 5.0, 11: 0.1, 12: 0.0}, 2: {20: 9.0, 21: 0.1}},
        {1: {10: 5.1, 11: 0.9, 12: 0.0}, 2: {20: 9.1, 21: 0.9, 22: 0.3}},
    )
    assert threads.placed(1, 2)
    assert threads.pinned == {11: {1}, 10: {0}, 21: {1}, 22: {0}, 20: {1}}


def test_a_single_process_is_left_alone() -> None:
    """Its arms share its threads."""
    threads = Threads({1: {10: 0.0}}, {1: {10: 1.0}})
    assert not threads.placed(1)
    assert threads.pinned == {}


def test_it_says_where_not_every_process_is_held() -> None:
    """One may be gone, do nothing, or not allow it."""
    readings = {1: {10: 0.0}, 2: {20: 0.0}}, {1: {10: 1.0}, 2: {20: 1.0}}
    assert not Threads(*readings, gone={20}).placed(1, 2)
    assert not Threads(readings[0], {1: {10: 1.0}, 2: {}}).placed(1, 2)
    assert not Threads(*readings).placed(1, 2, cores=())


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not let a thread be held")
def test_real_threads_are_held() -> None:
    """Two processes that spin end on one core, and the cores of this one stay as they were."""
    before = os.sched_getaffinity(0)
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        placement = Placement()
        placement.watch([one.pid for one in spinning])
        deadline = time.monotonic() + 20
        while not all(sum(thread_times(one.pid).values()) > 0.2 for one in spinning) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert placement.pin()
        assert [psutil.Process(one.pid).cpu_affinity() for one in spinning] == [[max(before)]] * 2
        assert not placement.was_undone()
        assert not placement.is_partial()
        os.setpriority(os.PRIO_PROCESS, spinning[0].pid, 19)
        assert placement.was_undone()
        assert placement.pin()
        assert placement.is_partial()
        os.sched_setaffinity(spinning[1].pid, before)
        assert placement.was_undone() or len(before) == 1
    finally:
        for one in spinning:
            one.kill()
            one.wait()
    assert os.sched_getaffinity(0) == before
    assert thread_times(spinning[0].pid) == {}
