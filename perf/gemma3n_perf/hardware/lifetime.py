"""Processes that end with the one that started them, however that ends. The standard library alone.

A process that is killed cannot end those it started, so each of these asks the system to. As a program
(``python -m gemma3n_perf.hardware.lifetime PID MODULE ARGUMENT...``) it runs a module that ends with process PID.
"""

import os
import runpy
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's sys/prctl.h."""


def end_with(parent: int) -> None:
    """Have the system kill this process when ``parent``, the process that started it, ends; at once if it has ended.

    On Linux that is when the thread that started this process ends. Elsewhere a thread waits, without using the CPU.
    """
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, ctypes.c_ulong(signal.SIGKILL))
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before the system was asked
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    """Wait for a process to end, as macOS and the BSDs tell it, then kill this one."""
    event = select.kevent(parent, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)  # type: ignore[attr-defined]
    try:
        select.kqueue().control([event], 1)  # type: ignore[attr-defined]
    except ProcessLookupError:
        pass
    except OSError:  # nobody tells, so this process lives until its work is done
        return
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise SystemExit, with a shell's code, where SIGTERM or SIGHUP would end this process with nothing cleaned up.

    For the main thread alone. A signal that is ignored, as under nohup, stays so.
    """
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for one, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(one, _end)
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    del sys.argv[:2]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
