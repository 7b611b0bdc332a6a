"""A real duel in a folder and a home of its own, watched from outside until the moment at which a fault happens to it.

Nothing in it is changed to be watched: its words of progress, its processes and its files say where it is.
"""

import ctypes
import fcntl
import os
import pty
import random
import resource
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import IO

import psutil

from gemma3n_perf.duel.record import DUELS
from gemma3n_perf.errors import PerfError
from studies.faults_place import Place
from studies.faults_record import PLANTED, Outcome

WORKLOAD = "nano/text/pp40-tg64"
COMMAND = ("duel", "here", PLANTED, "--workload", WORKLOAD, "--budget", "6", "--allow-busy", "--json")
ORPHANS_S = 15.0
"""How long a worker may take to notice that nobody asks it any more: it finishes its block first."""
OPENING_CPU_S = 0.5
_MARK = "GEMMA3N_PERF_STUDIES_TRIAL"
_FOLDERS = ("HOME", "TMPDIR", "GEMMA3N_PERF_CACHE", "PYTHONPATH", _MARK)
_DROP_BOUNDING, _OVERRIDE, _SEARCH = 24, 1, 2
Find = Callable[[], list[psutil.Process]]


class Missed(Exception):  # noqa: N818 (no fault of anything)
    """The fault cannot be tried here, or the command was over before its moment."""


@dataclass
class Victim:
    """The command, before and while it runs. Change ``argv`` and what follows it only before ``start``.

    ``limits`` are soft limits by resource, ``streams`` what standard output (1) and standard error (2) are, None for
    closed, where they are not a file and a terminal; ``folder`` is where it runs, if not in an empty one.
    """

    place: Place
    argv: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    limits: dict[int, int] = field(default_factory=dict)
    streams: dict[int, int | None] = field(default_factory=dict)
    umask: int = -1
    folder: Path | None = None
    helpers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    undo: list[Callable[[], object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Lay the command out."""
        place = self.place
        self.argv = self.argv or [sys.executable, "-m", "gemma3n_perf", *COMMAND, str(place.out / "record.json")]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GEMMA3N_", "XDG_", "GIT_"))}
        folders = zip(_FOLDERS, (place.user, place.tmp, place.cache, place.checkout / "perf", place.root), strict=True)
        self.environ = kept | {name: str(path) for name, path in folders} | {"TERM": "xterm", "COLUMNS": "100"}
        self._said = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._terminal: int | None = None
        self._halted = False
        self.ended_at = 0.0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The command. Raises Missed before it was started."""
        if self._process is None:
            raise Missed("it is not running")
        return self._process

    @property
    def is_started(self) -> bool:
        """Whether the command was started."""
        return self._process is not None

    @cached_property
    def driver(self) -> psutil.Process:
        """The process that asks the others."""
        return psutil.Process(self.process.pid)

    @property
    def server(self) -> list[psutil.Process]:
        """The process that workers are forked from, if it is there."""
        return [one for one in self._children(self.driver) if "forkserver.py" in _command(one)]

    @property
    def workers(self) -> list[psutil.Process]:
        """The arms, in the order of their starts."""
        found = [one for one in self._children(self.driver) if "worker.py" in _command(one)]
        for server in self.server:
            found += self._children(server)
        return sorted(found, key=lambda one: one.pid)

    def start(self) -> None:
        """Start the command, on a terminal of its own."""
        self._terminal, terminal = pty.openpty()
        out: IO[bytes] = (self.place.root / "stdout").open("wb")
        streams = {1: out.fileno(), 2: terminal} | self.streams
        try:
            self._process = subprocess.Popen(
                self.argv, cwd=self.folder or self.place.work, env=self.environ, start_new_session=True, stdin=terminal,
                stdout=streams[1], stderr=streams[2], preexec_fn=lambda: self._become(terminal),
            )  # fmt: skip
        finally:
            out.close()
            os.close(terminal)

    def _become(self, terminal: int) -> None:
        for one in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGTSTP):
            signal.signal(one, signal.SIG_DFL)
        with suppress(OSError):
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        if sys.platform == "linux":  # root is no ordinary user: permissions shall count
            for capability in (_OVERRIDE, _SEARCH):
                ctypes.CDLL(None).prctl(_DROP_BOUNDING, capability, 0, 0, 0)
        for what, soft in {resource.RLIMIT_CORE: 0, **self.limits}.items():
            hard = resource.getrlimit(what)[1]
            resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
        if self.umask >= 0:
            os.umask(self.umask)
        for number in (0, 1, 2):
            if self.streams.get(number, 0) is None:
                os.close(number)

    def reach(self, moment: str, fault: str, limit_s: float) -> bool:
        """Wait until ``moment``; False where the command ended before. A moment that passes quickly is held on to."""
        deadline = time.monotonic() + limit_s
        drawn = random.Random(fault).uniform(0.5, 12.0)
        began = time.monotonic()
        reached: dict[str, Callable[[], bool]] = {
            "opening": lambda: sum(self.driver.cpu_times()[:2]) >= OPENING_CPU_S,
            "starting": lambda: b"launch 1, starting" in self._said,
            "measuring": lambda: b"launch 1, measuring" in self._said,
            "between": lambda: b"launch 2, starting" in self._said,
            "writing": lambda: any(name.endswith(".partial") for name in os.listdir(self.place.out)),
            "random": lambda: time.monotonic() - began >= drawn,
        }
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            with suppress(psutil.NoSuchProcess):
                if reached[moment]():
                    break
            self.pause(0.0005 if moment == "writing" and b"launch 2" in self._said else 0.02, once=True)
        else:
            return False
        if moment == "writing":
            self.halt(True)
        elif moment in ("starting", "measuring"):
            self.pause({"starting": 0.3, "measuring": 1.5}[moment])
        return self.process.poll() is None

    def halt(self, halted: bool) -> None:
        """Stop the driver, or have it go on."""
        if halted != self._halted and self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP if halted else signal.SIGCONT)
        self._halted = halted

    def pause(self, seconds: float, *, once: bool = False) -> None:
        """Let it run for so long, or until it says something (``once``), and hear what it says."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if self._terminal is None:
                time.sleep(left)
                return
            if select.select([self._terminal], [], [], left)[0]:
                try:
                    self._said += os.read(self._terminal, 65_536)
                except OSError:  # nobody has the other end any more
                    time.sleep(max(0.0, deadline - time.monotonic()))
                    return
                if once:
                    return

    def find(self, which: Find) -> list[psutil.Process]:
        """Return processes, waiting for the first of them. Raises Missed."""
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(psutil.Error):
                if found := which():
                    return found
            self.pause(0.02)
        raise Missed("the process was not there")

    def type(self, keys: bytes) -> None:
        """Press keys on its terminal."""
        assert self._terminal is not None
        os.write(self._terminal, keys)

    def hang_up(self) -> None:
        """Take its terminal away."""
        assert self._terminal is not None
        os.close(self._terminal)
        self._terminal = None

    def finish(self, limit_s: float, ignored: tuple[str, ...] = ()) -> Outcome:
        """Wait for the end of the command and of all its processes; what does not end is ended."""
        code = self._ended(limit_s)
        deadline = time.monotonic() + (0.0 if code is None else ORPHANS_S)
        while (orphans := self._alive()) and time.monotonic() < deadline:
            self.pause(0.2)
        names = tuple(f"{one.pid} {_command(one)[-60:]}" for one in orphans)
        self._end_processes()
        with suppress(OSError):
            self.place.out.chmod(0o700)
        out = self.place.root / "stdout"
        partial = tuple(one.name for one in self.place.out.glob("*.partial")) if self.place.out.is_dir() else ()
        return Outcome(
            code, out.read_text(errors="replace") if out.exists() else "", self._said.decode(errors="replace"),
            names if code is not None else (), self.place.touched(ignored), partial, self._record(),
        )  # fmt: skip

    def _ended(self, limit_s: float) -> int | None:
        deadline = time.monotonic() + limit_s
        while (code := self.process.poll()) is None and time.monotonic() < deadline:
            self.pause(0.05)
        self.ended_at = time.monotonic()
        self.pause(0.05)  # its last words
        return code

    def _record(self) -> str | None:
        path = self.place.out / "record.json"
        if not path.is_file():
            return ""
        with suppress(OSError):
            path.chmod(0o600)
        try:
            return DUELS.read(path).verdict
        except PerfError:
            return None

    def end(self) -> None:
        """End every process of the trial, and undo what the fault did to the machine."""
        self._end_processes()
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        if self._terminal is not None:
            self.hang_up()
        while self.undo:
            self.undo.pop()()

    def _end_processes(self) -> None:
        deadline = time.monotonic() + ORPHANS_S
        while (left := self._alive()) and time.monotonic() < deadline:
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            self.pause(0.02)  # a killed process is seen as running for a moment
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _alive(self) -> list[psutil.Process]:
        """Processes that carry the trial's mark in their environment, those that wait to be buried aside."""
        found = []
        for one in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                marked = one.environ().get(_MARK) == str(self.place.root)
                if marked and one.status() != psutil.STATUS_ZOMBIE:
                    found.append(one)
        return found

    @staticmethod
    def _children(process: psutil.Process) -> list[psutil.Process]:
        with suppress(psutil.Error):
            return [one for one in process.children() if one.status() != psutil.STATUS_ZOMBIE]
        return []


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
