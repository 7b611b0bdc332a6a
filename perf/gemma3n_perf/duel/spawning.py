"""Ways to start a worker: a fresh process, or one forked from a parent that all arms of a launch share."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.forkserver import was_stopped
from gemma3n_perf.errors import WorkerFailedError

QUIT_S = 3.0
_START_S = 300.0


class Process(Protocol):
    """An operating-system process that leads a group of its own."""

    @property
    def pid(self) -> int: ...  # noqa: D102

    def wait(self, timeout: float) -> int:
        """Return its exit code, negative for a signal. Raises subprocess.TimeoutExpired."""


def start_fresh(arm: ReadyArm, descriptors: tuple[int, int, int]) -> Process:
    """Start an arm's worker as a process of its own, with these as standard input, output and error."""
    stdin, stdout, stderr = descriptors
    return subprocess.Popen(
        arm.argv, stdin=stdin, stdout=stdout, stderr=stderr, env=os.environ | arm.variables, start_new_session=True
    )


def stopped(process: Process) -> bool:
    """Whether a signal has stopped a worker, or had it go on, since this was last asked. Known on Linux alone."""
    if isinstance(process, _Forked):
        return process.was_stopped()
    return sys.platform == "linux" and was_stopped(process.pid)


class ForkServer:
    """The other end of ``forkserver.py``, for arms of one interpreter and its packages."""

    def __init__(self, arm: ReadyArm) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        script = str(Path(__file__).with_name("forkserver.py"))
        environ = os.environ | arm.variables | {"PYTHONPATH": arm.parent_path}
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        with theirs:
            self._process = subprocess.Popen(
                (arm.argv[0], "-P", script, str(theirs.fileno())), env=environ, pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL, stderr=self._said, start_new_session=True,
            )  # fmt: skip
        if self._reply(arm) != b"ready":
            raise self._gone(arm)

    def fork(self, arm: ReadyArm, descriptors: tuple[int, int, int]) -> Process:
        """Fork a worker with these as standard input, output and error. Raises WorkerFailedError."""
        request = {"argv": arm.argv, "environ": os.environ | arm.variables}
        try:
            # Not msgspec, which refuses what is not UTF-8, as a variable of the environment may be.
            socket.send_fds(self._ours, [json.dumps(request).encode()], descriptors)
        except OSError as error:
            raise self._gone(arm) from error
        return _Forked(int(self._reply(arm)), self._ours)

    def close(self) -> None:
        """End it; it kills the workers that are left."""
        self._ours.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(QUIT_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._said.close()

    def _reply(self, arm: ReadyArm) -> bytes:
        data = self._ours.recv(65_536) if select.select([self._ours], [], [], _START_S)[0] else b""
        if not data:
            raise self._gone(arm)
        return data

    def _gone(self, arm: ReadyArm) -> WorkerFailedError:
        self._process.kill()
        self._process.wait()
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
        self.close()
        return WorkerFailedError(
            f"the parent of the workers of {arm.text} ended or hung" + f": {last}" * bool(last),
            remedy=f"check that {arm.argv[0]} can import mlx_vlm, from a working directory that is there",
        )


class _Forked:
    """A worker that was forked: a child of the fork server, which reports how it ended."""

    def __init__(self, pid: int, server: socket.socket) -> None:
        self.pid = pid
        self._server = server
        self._watch = os.pidfd_open(pid)
        self._code: int | None = None

    def was_stopped(self) -> bool:
        with suppress(OSError, ValueError):
            self._server.send(msgspec.json.encode({"stopped": self.pid}))
            return bool(msgspec.json.decode(self._server.recv(65_536)))
        return False

    def wait(self, timeout: float) -> int:
        if self._code is None:
            if not select.select([self._watch], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            os.close(self._watch)
            self._code = -signal.SIGKILL  # as its parent, where that does not answer
            with suppress(OSError, ValueError):
                self._server.send(msgspec.json.encode({"wait": self.pid}))
                self._code = int(self._server.recv(65_536))
        return self._code
