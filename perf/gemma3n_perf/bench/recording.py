"""Recording sessions for a baseline: whole ``pytest perf/`` runs, each in a fresh process, one after the other."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.hardware import lifetime
from gemma3n_perf.store.files import data_folder

GRACE_S = 10.0
"""Closing a worker takes up to three seconds, and a launch has two or more."""


def run_pytest(command: Sequence[str]) -> int:
    """Run one session in a fresh interpreter, its output on this terminal; returns its exit code.

    It ends with this process, and is left ``GRACE_S`` seconds to say what it has where that is interrupted.
    """
    argv = [sys.executable, "-m", lifetime.__name__, str(os.getpid()), "pytest", *command]
    with subprocess.Popen(argv) as process:
        try:
            return process.wait()
        except BaseException as ended:
            # A terminal sends Ctrl-C to both processes; any other signal reached this one alone.
            if not isinstance(ended, KeyboardInterrupt):
                process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            raise
        finally:
            process.kill()


def perf_folder() -> Path:
    """Return the folder of the bench files: beside this package in a checkout, else ``perf`` in the current folder."""
    beside = Path(__file__).parents[2]
    return beside if (beside / "conftest.py").is_file() else Path("perf")


@dataclass(frozen=True, slots=True)
class Recorder:
    """What recording needs of the world: how to run pytest, what to run, and the folder that sessions are stored in."""

    run: Callable[[Sequence[str]], int] = run_pytest
    perf: Path = field(default_factory=perf_folder)
    data: Path = field(default_factory=data_folder)

    def stored(self) -> set[Path]:
        """Return all session files of this machine."""
        return set((self.data / "sessions").glob("*/[0-9]*_*.json"))

    def record(self, sessions: int, options: Sequence[str]) -> Iterator[int]:
        """Record ``sessions`` sessions with ``options`` for pytest as the numbers returned are drawn.

        Raises UsageError for what cannot be recorded. Drawing a number raises NotMeasuredError where the session
        before it failed or stored nothing; what was stored before that is kept.
        """
        if sessions < 1:
            raise UsageError(f"{sessions} sessions were requested", expected="1 or more", remedy="pass --sessions 5")
        if any(option.startswith("--plant") for option in options):
            raise UsageError("a planted slowdown cannot be saved", remedy="leave out --plant-slowdown")
        return self._record(sessions, options)

    def _record(self, sessions: int, options: Sequence[str]) -> Iterator[int]:
        for number in range(1, sessions + 1):
            yield number
            before = self.stored()
            code = self.run([str(self.perf), *options])
            if code != 0:
                raise NotMeasuredError(
                    f"session {number} of {sessions} ended with exit code {code}",
                    expected="a session that measures every workload",
                    remedy="its own output says why; put that right and record the missing sessions",
                )
            if self.stored() <= before:
                raise NotMeasuredError(
                    f"session {number} of {sessions} stored nothing in {self.data / 'sessions'}",
                    expected="one new session file",
                    remedy="leave out options that measure nothing, such as --collect-only or -k",
                )
