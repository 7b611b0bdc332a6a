"""The other end of a worker: a process that is started, asked with a time limit, and never outlives its launch."""

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from gemma3n_perf import errors
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.protocol import Failed, Quit, Reply, Request
from gemma3n_perf.duel.spawning import QUIT_S, ForkServer, Process, start_fresh, stopped
from gemma3n_perf.errors import OutOfMemoryError, PerfError, WorkerFailedError

_OUTPUT_CHARACTERS = 600


class Worker(Protocol):
    """One running arm."""

    def send(self, request: Request) -> None:
        """Ask, without waiting for the answer."""

    def receive(self, timeout_s: float) -> Reply:
        """Return the next answer. Raises the worker's own error, WorkerFailedError, OutOfMemoryError."""

    def was_stopped(self) -> bool:
        """Whether a signal has stopped it, or had it go on, since this was last asked."""

    def close(self) -> None:
        """End the process, whatever its state."""


Spawn = Callable[[ReadyArm, bool], Worker]
"""Starts an arm's worker; the second argument says that all arms of the launch may be forked from one parent."""


class ProcessWorker:
    """A worker in a process and process group of its own, which ``start`` makes with given descriptors."""

    def __init__(self, arm: ReadyArm, start: Callable[[ReadyArm, tuple[int, int, int]], Process] = start_fresh) -> None:
        self._arm = arm
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._read = b""
        self._decode = msgspec.json.Decoder(Reply).decode
        stdin, self._stdin = os.pipe()
        self._stdout, stdout = os.pipe()
        try:
            self._process = start(arm, (stdin, stdout, self._stderr.fileno()))
        except OSError as error:
            self._close()
            raise WorkerFailedError(
                f"the worker of {arm.text} cannot be started: {error}", remedy=f"check {arm.argv[0]}"
            ) from error
        except WorkerFailedError:
            self._close()
            raise
        finally:
            os.close(stdin)
            os.close(stdout)

    def send(self, request: Request) -> None:
        """Write one line."""
        data = msgspec.json.encode(request) + b"\n"
        with suppress(BrokenPipeError):  # receive() tells what became of it
            while data:
                data = data[os.write(self._stdin, data) :]

    def receive(self, timeout_s: float) -> Reply:
        """Read one line, waiting up to ``timeout_s`` seconds for each piece of it."""
        while b"\n" not in self._read:
            if not select.select([self._stdout], [], [], timeout_s)[0]:
                raise self._hung(timeout_s)
            piece = os.read(self._stdout, 65_536)
            if not piece:
                raise self._died()
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        try:
            reply: Reply = self._decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise WorkerFailedError(
                f"the worker of {self._arm.text} answered {line[:120]!r}: {error}",
                expected="an answer of this suite's protocol",
                remedy="compare with a commit nearer to this one",
            ) from error
        if isinstance(reply, Failed):
            raise self._named(reply)
        return reply

    def was_stopped(self) -> bool:
        """Whether a signal has stopped it, or had it go on, since this was last asked."""
        return stopped(self._process)

    def close(self) -> None:
        """Ask it to quit, then kill its process group. Does nothing the second time."""
        if self._stderr.closed:
            return
        self.send(Quit())
        try:
            self._process.wait(QUIT_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._close()

    def _close(self) -> None:
        for pipe in (self._stdin, self._stdout):
            os.close(pipe)
        self._stderr.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(QUIT_S)

    def _hung(self, timeout_s: float) -> WorkerFailedError:
        self._kill()
        return WorkerFailedError(
            f"the worker of {self._arm.text} did not reply in {timeout_s:.0f} s and was killed{self._last_output()}",
            expected="an answer",
            remedy="see with top or nvidia-smi what keeps it waiting, then measure again, or a smaller checkpoint",
        )

    def _died(self) -> WorkerFailedError | OutOfMemoryError:
        try:
            code = self._process.wait(QUIT_S)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.wait(QUIT_S)
        output = self._last_output()
        # Nobody here killed it, so a SIGKILL is the kernel's, which is how Linux says that memory ran out.
        if code == -signal.SIGKILL or "out of memory" in output.lower() or "bad_alloc" in output.lower():
            return OutOfMemoryError(
                f"the worker of {self._arm.text} was killed, as when memory runs out{output}",
                expected="room for both arms at once: each holds the checkpoint",
                remedy="close other programs, or choose a smaller checkpoint",
            )
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return WorkerFailedError(
            f"the worker of {self._arm.text} {how}{output}",
            remedy="see its last output; run that arm alone to repeat it",
        )

    def _named(self, reply: Failed) -> PerfError:
        kind = error_class(reply.kind)
        output = self._last_output() if kind is WorkerFailedError else ""
        return kind(f"{self._arm.text}: {reply.found}{output}", expected=reply.expected, remedy=reply.remedy)

    def _last_output(self) -> str:
        with suppress(OSError, ValueError):
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, size - 4 * _OUTPUT_CHARACTERS))
            text = " | ".join(self._stderr.read().decode(errors="replace").split("\n")).strip(" |")
            return last_output(text)
        return ""


def last_output(text: str) -> str:
    """``; its last output: ...`` of what a process said, or nothing where it said nothing.

    Words are kept in records, which are committed: nobody's folders belong there.
    """
    if not text:
        return ""
    folder = os.path.expanduser("~").rstrip("/")
    text = (text.replace(folder, "~") if folder else text).replace(tempfile.gettempdir(), "$TMPDIR")
    return f"; its last output: {text[-_OUTPUT_CHARACTERS:]}"


def error_class(name: str) -> type[PerfError]:
    """The class of a named error of another process; WorkerFailedError for a name that is none of ours."""
    named = getattr(errors, name, None)
    known = isinstance(named, type) and issubclass(named, PerfError)
    return named if known else WorkerFailedError  # type: ignore[return-value]


class Spawner:
    """Starts workers: as fresh processes, or, with ``forking``, from a parent that all arms of a launch share."""

    def __init__(self, *, forking: bool = False) -> None:
        self._forking = forking
        self._servers: dict[str, ForkServer] = {}

    def __call__(self, arm: ReadyArm, shared: bool) -> "ProcessWorker":
        """Start an arm's worker process. Raises WorkerFailedError."""
        if not (self._forking and shared):
            return ProcessWorker(arm, start_fresh)
        if arm.parent not in self._servers:
            self._servers[arm.parent] = ForkServer(arm)
        return ProcessWorker(arm, self._servers[arm.parent].fork)

    def close(self) -> None:
        """End the parents."""
        for server in self._servers.values():
            server.close()
        self._servers.clear()
