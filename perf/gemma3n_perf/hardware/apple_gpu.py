"""A Mac's GPU around runs, without root: its clock and use, what others use of it, and how fast it is against before.

Opinion: no Mac was at hand to learn how much its clock moves by itself, so only what is far off counts as throttling.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from gemma3n_perf.hardware.system import System

CLIENTS = ("ioreg", "-r", "-d", "1", "-w", "0", "-c", "AGXDeviceUserClient")
POWER_MANAGER = ("ioreg", "-r", "-d", "1", "-w", "0", "-n", "pmgr")
_ASLEEP = {"OFF", "IDLE", "DOWN"}


class Use(NamedTuple):
    """Of one interval: the mean clock while the GPU worked, hertz; the share of it in which it did; its speed."""

    clock_hz: float | None = None
    share: float | None = None
    speed: float | None = None


class Gpu:
    """The GPU of ``system`` between ``begin`` and ``end``."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._clocks: tuple[float, ...] | None = None
        self._first: float | None = None

    def begin(self) -> None:
        """Begin an interval, with the GPU's table of clocks and what starts once at hand."""
        if self._clocks is None:
            self._clocks = clocks_hz(self._system)
        self._system.gpu_states()

    def end(self) -> Use:
        """End it. The speed is 1 in the first interval that has one; without states a fixed computation is timed."""
        states = self._system.gpu_states()
        if states is None:
            seconds = self._system.gpu_work_s()
            return Use(speed=self._against_first(1 / seconds if seconds else None))
        awake = [ticks for name, ticks in states.items() if name not in _ASLEEP]
        total, busy = sum(states.values()), sum(awake)
        clock_hz = None
        if busy and self._clocks and len(awake) <= len(self._clocks):
            clock_hz = sum(ticks * hertz for ticks, hertz in zip(awake, self._clocks, strict=False)) / busy
        return Use(clock_hz, round(busy / total, 4) if total else None, self._against_first(clock_hz))

    def _against_first(self, speed: float | None) -> float | None:
        self._first = self._first or speed
        return round(speed / self._first, 4) if speed and self._first else None


def clocks_hz(system: System) -> tuple[float, ...]:
    """Return the clocks of the GPU's states, lowest first; none where they are not told.

    The power manager's table holds pairs of hertz and millivolts; a first one of 0 Hz stands for a GPU that is off.
    """
    match = re.search(r'"voltage-states9" = <([0-9a-f]+)>', system.run(POWER_MANAGER) or "")
    table = bytes.fromhex(match[1]) if match and len(match[1]) % 16 == 0 else b""
    return tuple(hz for at in range(0, len(table), 8) if (hz := float(int.from_bytes(table[at : at + 4], "little"))))


def seconds_by_process(system: System) -> Mapping[int, float] | None:
    """Return how long the GPU has worked for each process, seconds; None where that is not told.

    Source: AppUsage of the driver's user clients, which Activity Monitor shows as well; in nanoseconds.
    """
    found: Counter[int] = Counter()
    for client in re.split(r"^\s*[+|\s]*-o ", system.run(CLIENTS) or "", flags=re.MULTILINE):
        creator = re.search(r'"IOUserClientCreator" = "pid (\d+),', client)
        if creator:
            found[int(creator[1])] += sum(map(int, re.findall(r'"accumulatedGPUTime"=(\d+)', client)))
    return {pid: time * 1e-9 for pid, time in found.items()} or None


def foreign(
    before: Mapping[int, float] | None, after: Mapping[int, float] | None, seconds: float, own: frozenset[int]
) -> float | None:
    """Return the share of so many ``seconds`` that the GPU worked for processes other than our ``own``."""
    if before is None or after is None or seconds <= 0:
        return None
    used = sum(max(0.0, time - before.get(pid, 0.0)) for pid, time in after.items() if pid not in own)
    return round(min(1.0, used / seconds), 4)
