"""Faults around the processes: streams that are not there, a machine that others use, what lies where its lock is."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO

import psutil

from gemma3n_perf.hardware.lock import LOCK_PATH
from studies.faults_fault import Fault
from studies.faults_victim import Missed, Victim

MOMENTS = ("before", "starting", "measuring", "between", "writing")
BUSY_S = 3.0
_SPIN = (sys.executable, "-c", "while True: pass")


def faults() -> Iterator[Fault]:
    """Yield them all."""
    yield from _streams()
    yield from _machine()
    yield from _lock_files()


def _streams() -> Iterator[Fault]:
    names = {0: ("in", "input"), 1: ("out", "output"), 2: ("err", "error")}

    def close(*numbers: int) -> Callable[[Victim], None]:
        return lambda victim: victim.streams.update(dict.fromkeys(numbers))

    def full(number: int) -> Callable[[Victim], None]:
        def strike(victim: Victim) -> None:
            device = os.open("/dev/full", os.O_WRONLY)
            victim.undo.append(lambda: os.close(device))
            victim.streams[number] = device

        return strike

    for number, (name, what) in names.items():
        yield Fault(f"std{name}-closed", f"standard {what} is closed", close(number))
        if number:
            needs = _linux_device
            yield Fault(f"std{name}-full", f"standard {what} is /dev/full", full(number), needs=needs)
    yield Fault("streams-closed", "standard input, output and error are closed", close(*names))

    ends: list[IO[bytes]] = []

    def piped(victim: Victim) -> None:
        reader, writer = os.pipe()
        ends[:] = [os.fdopen(reader, "rb"), os.fdopen(writer, "wb")]
        victim.streams[1] = writer
        victim.undo += [one.close for one in ends]

    what = "whoever reads standard output goes away"
    yield Fault("reader-gone", what, lambda victim: ends[0].close(), MOMENTS, prepare=piped)


def _linux_device() -> str:
    return "" if os.path.exists("/dev/full") else "there is no /dev/full"


def _can_pin() -> str:
    return "" if hasattr(psutil.Process, "cpu_affinity") else "the system keeps no process on a core"


def _machine() -> Iterator[Fault]:
    def hog(victim: Victim) -> None:
        victim.helpers += [subprocess.Popen(_SPIN) for _ in range(2 * (os.cpu_count() or 1))]
        victim.pause(BUSY_S)
        for one in victim.helpers:
            one.kill()

    def everywhere(change: Callable[[psutil.Process], object]) -> Callable[[Victim], None]:
        def strike(victim: Victim) -> None:
            for one in [victim.driver, *victim.server, *victim.workers]:
                with suppress(psutil.Error):
                    change(one)

        return strike

    def occupied(victim: Victim) -> None:
        folder = os.open(LOCK_PATH.parent, os.O_RDONLY)
        victim.undo.append(lambda: os.close(folder))
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Missed("somebody else measures") from error

    moments = ("starting", "measuring", "between")
    yield Fault("busy", "twice as many processes as cores compute for 3 s", hog, moments)
    yield Fault("niced", "all its processes give way to others", everywhere(lambda one: one.nice(19)), moments)
    strike, needs = everywhere(lambda one: one.cpu_affinity([min(os.sched_getaffinity(0))])), _can_pin
    yield Fault("one-core", "all its processes are kept on one core", strike, moments, needs=needs)
    yield Fault("lock-held", "somebody else measures", occupied)

    def briefly(victim: Victim) -> None:
        victim.argv += ["--wait", "60"]
        script = "import fcntl,os,sys,time; fcntl.flock(os.open(sys.argv[1], 0), 2); print(flush=True); time.sleep(8)"
        holder = subprocess.Popen((sys.executable, "-c", script, str(LOCK_PATH.parent)), stdout=subprocess.PIPE)
        victim.helpers.append(holder)
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.stdout.close()

    yield Fault("lock-held-briefly", "somebody else measures for 8 s, and --wait was given", briefly)


def _lock_files() -> Iterator[Fault]:
    def put(make: Callable[[], object]) -> Callable[[Victim], None]:
        def strike(victim: Victim) -> None:
            victim.undo.append(lambda: LOCK_PATH.unlink(missing_ok=True))
            LOCK_PATH.unlink(missing_ok=True)
            make()

        return strike

    yield Fault("lock-file-removed", "the file that names who measures is removed", put(lambda: None), MOMENTS)
    fifo = put(lambda: os.mkfifo(LOCK_PATH))
    yield Fault("lock-file-fifo", "the file that names who measures is a pipe", fifo, MOMENTS)
    garbage = put(lambda: LOCK_PATH.write_bytes(b'{"pid": 1e999, "since": "'))
    yield Fault("lock-file-garbage", "the file that names who measures holds garbage", garbage, MOMENTS)
