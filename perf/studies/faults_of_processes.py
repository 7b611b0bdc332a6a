"""Faults of processes: signals and keys, workers that are stopped or ended, limits of memory, files and time."""

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import psutil

from studies.faults_fault import Fault
from studies.faults_victim import Victim

DRIVER = ("opening", "starting", "measuring", "between", "writing")
SERVER = ("starting", "measuring", "between", "writing")
WORKERS = ("starting", "measuring", "between", "random")
PAUSE_S = 3.0
Targets = Callable[[Victim], list[psutil.Process]]
_LIMITED = ("before", "starting", "measuring", "between", "writing")
_SIGNALS = {
    "kill": signal.SIGKILL,
    "term": signal.SIGTERM,
    "int": signal.SIGINT,
    "hup": signal.SIGHUP,
    "segv": signal.SIGSEGV,
}
_MB = 1 << 20
_PRLIMIT = getattr(resource, "prlimit", None)


def faults() -> Iterator[Fault]:
    """Yield them all."""
    yield from _signals()
    yield from _keys()
    yield from _pauses()
    yield from _limits()


def _one(number: int) -> Targets:
    """Find the worker that was started first (0) or second (1)."""

    def found(victim: Victim) -> list[psutil.Process]:
        return victim.find(lambda: victim.workers[number : number + 1])

    return found


def _both(victim: Victim) -> list[psutil.Process]:
    return victim.find(lambda: victim.workers if len(victim.workers) > 1 else [])


def _driver(victim: Victim) -> list[psutil.Process]:
    return [victim.driver]


def _server(victim: Victim) -> list[psutil.Process]:
    return victim.find(lambda: victim.server)


def _forks() -> str:
    return "" if sys.platform == "linux" else "arms are forked from one parent on Linux alone"


def _send(find: Targets, number: int) -> Callable[[Victim], None]:
    def strike(victim: Victim) -> None:
        for one in find(victim):
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    return strike


def _ended_by(number: int) -> frozenset[int]:
    """Return the exit codes of a process that a signal ended, or that cleaned up first."""
    return frozenset({-number, 128 + number})


def _signals() -> Iterator[Fault]:
    for name, number in (_SIGNALS | {"quit": signal.SIGQUIT}).items():
        moments = (*DRIVER, "random") if name == "kill" else DRIVER
        what = f"{number.name} to the process that runs the duel"
        yield Fault(f"driver-{name}", what, _send(_driver, number), moments, _ended_by(number), limit_s=60)
    for name, number in _SIGNALS.items():
        for which, find in (("first", _one(0)), ("second", _one(1))):
            what = f"{number.name} to the worker that was started {which}"
            yield Fault(f"{which}-worker-{name}", what, _send(find, number), WORKERS)
        what = f"{number.name} to the parent of the workers"
        yield Fault(f"server-{name}", what, _send(_server, number), SERVER, needs=_forks)
    yield Fault("workers-kill", "SIGKILL to both workers at once", _send(_both, signal.SIGKILL), WORKERS)


def _keys() -> Iterator[Fault]:
    def twice(victim: Victim) -> None:
        victim.type(b"\x03")
        victim.halt(False)
        victim.pause(0.2)
        with suppress(OSError):
            victim.type(b"\x03")

    def stop(victim: Victim) -> None:
        victim.type(b"\x1a")
        victim.pause(PAUSE_S)
        with suppress(psutil.NoSuchProcess):
            victim.driver.send_signal(signal.SIGCONT)

    yield Fault("ctrl-c", "Ctrl-C on its terminal", lambda victim: victim.type(b"\x03"), DRIVER, limit_s=60)
    yield Fault("ctrl-c-twice", "Ctrl-C, and again 0.2 s later", twice, DRIVER, limit_s=60)
    yield Fault("ctrl-z", "Ctrl-Z on its terminal, and fg 3 s later", stop, DRIVER)
    what = "its terminal goes away"
    yield Fault("hang-up", what, lambda victim: victim.hang_up(), DRIVER, _ended_by(signal.SIGHUP), limit_s=60)


def _pauses() -> Iterator[Fault]:
    def pause(find: Targets) -> Callable[[Victim], None]:
        def strike(victim: Victim) -> None:
            found = find(victim)
            _send(lambda victim: found, signal.SIGSTOP)(victim)
            victim.pause(PAUSE_S)
            _send(lambda victim: found, signal.SIGCONT)(victim)

        return strike

    hang = "SIGSTOP to the worker that was started {}, and no SIGCONT"
    for which, find in (("first", _one(0)), ("second", _one(1))):
        what = f"the worker that was started {which} is stopped for 3 s"
        yield Fault(f"{which}-worker-pause", what, pause(find), WORKERS)
        moments = ("measuring", "between")
        yield Fault(f"{which}-worker-hang", hang.format(which), _send(find, signal.SIGSTOP), moments, limit_s=1000)
    yield Fault("workers-pause", "both workers are stopped for 3 s", pause(_both), WORKERS)
    yield Fault("server-pause", "the parent of the workers is stopped for 3 s", pause(_server), SERVER, needs=_forks)
    yield Fault("driver-pause", "the process that runs the duel is stopped for 3 s", pause(_driver), DRIVER)


def _limits() -> Iterator[Fault]:
    def on_driver(what: int, at_first: int, now: Callable[[psutil.Process], int]) -> Callable[[Victim], None]:
        def strike(victim: Victim) -> None:
            if victim.is_started:
                _limit(victim.driver, what, now(victim.driver))
            else:
                victim.limits[what] = at_first

        return strike

    def on(found: Targets, what: int, now: Callable[[psutil.Process], int]) -> Callable[[Victim], None]:
        def strike(victim: Victim) -> None:
            for one in found(victim):
                with suppress(psutil.NoSuchProcess):
                    _limit(one, what, now(one))

        return strike

    def memory(process: psutil.Process) -> int:
        return int(process.memory_info().vms) + 16 * _MB

    def data(process: psutil.Process) -> int:
        return int(process.memory_info().data) + 16 * _MB

    def files(process: psutil.Process) -> int:
        return process.num_fds()

    def cpu(process: psutil.Process) -> int:
        return int(sum(process.cpu_times()[:2])) + 1

    ended, limited = frozenset({-signal.SIGXCPU}), partial(Fault, needs=_can_limit, cold=True)
    kinds: dict[str, tuple[str, int, int, Callable[[psutil.Process], int]]] = {
        "memory": ("no more address space than it has, and 16 MB", resource.RLIMIT_AS, 1500 * _MB, memory),
        "data": ("no more private memory than it has, and 16 MB", resource.RLIMIT_DATA, 300 * _MB, data),
        "open-files": ("no more open files than it has", resource.RLIMIT_NOFILE, 10, files),
        "file-size": ("no file may grow", resource.RLIMIT_FSIZE, 0, lambda process: 0),
        "cpu-time": ("one more second of CPU time", resource.RLIMIT_CPU, 2, cpu),
    }
    for name, (what, number, at_first, now) in kinds.items():
        ends = ended if name == "cpu-time" else frozenset()
        strike, of_driver = on_driver(number, at_first, now), f"the process that runs the duel: {what}"
        yield limited(f"driver-{name}", of_driver, strike, _LIMITED, ends)
        moments = ("starting", "measuring", "between")
        yield limited(f"workers-{name}", f"both workers: {what}", on(_both, number, now), moments)
    for name in ("memory", "open-files"):
        what, number, _, now = kinds[name]
        strike = on(_server, number, now)
        moments = ("starting", "measuring", "between")
        yield limited(f"server-{name}", f"the parent of the workers: {what}", strike, moments)

    def processes(victim: Victim) -> None:
        victim.limits[resource.RLIMIT_NPROC] = 1

    yield Fault("processes", "no further process may be started", processes, needs=_ordinary, cold=True)


def _limit(process: psutil.Process, what: int, soft: int) -> None:
    assert _PRLIMIT is not None
    _PRLIMIT(process.pid, what, (soft, resource.getrlimit(what)[1]))


def _can_limit() -> str:
    return "" if _PRLIMIT else "the system cannot limit a running process"


def _ordinary() -> str:
    return "" if os.getuid() else "root may start as many processes as it likes"
