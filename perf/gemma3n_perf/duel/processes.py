"""The other end of a worker: a process that is started, asked with a time limit, and never outlives its launch."""

import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from gemma3n_perf import errors
from gemma3n_perf.duel.builder import ReadyArm
from gemma3n_perf.duel.worker import Failed, Quit, Reply, Request
from gemma3n_perf.errors import OutOfMemoryError, PerfError, WorkerFailedError

_QUIT_S = 3.0
_OUTPUT_CHARACTERS = 600


class Worker(Protocol):
    """One running arm."""

    def send(self, request: Request) -> None:
        """Ask, without waiting for the answer."""

    def receive(self, timeout_s: float) -> Reply:
        """Return the next answer. Raises the worker's own error, WorkerFailedError, OutOfMemoryError."""

    def close(self) -> None:
        """End the process, whatever its state."""


Spawn = Callable[[ReadyArm], Worker]


def spawn(arm: ReadyArm) -> "ProcessWorker":
    """Start an arm's worker process."""
    return ProcessWorker(arm)


class ProcessWorker:
    """A worker in a process and process group of its own."""

    def __init__(self, arm: ReadyArm) -> None:
        self._arm = arm
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._read = b""
        try:
            self._process = subprocess.Popen(
                arm.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0,
                env=os.environ | arm.environ, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise WorkerFailedError(
                f"the worker of {arm.text} cannot be started: {error}", remedy=f"check {arm.argv[0]}"
            ) from error
        self._answer = msgspec.json.Decoder(Reply).decode

    def send(self, request: Request) -> None:
        """Write one line."""
        stdin = self._process.stdin
        assert stdin is not None
        with suppress(BrokenPipeError):  # receive() tells what became of it
            stdin.write(msgspec.json.encode(request) + b"\n")

    def receive(self, timeout_s: float) -> Reply:
        """Read one line, waiting up to ``timeout_s`` seconds for each piece of it."""
        stdout = self._process.stdout
        assert stdout is not None
        while b"\n" not in self._read:
            if not select.select([stdout], [], [], timeout_s)[0]:
                raise self._hung(timeout_s)
            piece = os.read(stdout.fileno(), 65_536)
            if not piece:
                raise self._died()
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        try:
            reply: Reply = self._answer(line)
        except msgspec.MsgspecError as error:
            raise WorkerFailedError(
                f"the worker of {self._arm.text} answered {line[:120]!r}: {error}",
                expected="an answer of this suite's protocol",
                remedy="compare with a commit nearer to this one",
            ) from error
        if isinstance(reply, Failed):
            raise self._named(reply)
        return reply

    def close(self) -> None:
        """Ask it to quit, then kill its process group."""
        self.send(Quit())
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._said.close()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _hung(self, timeout_s: float) -> WorkerFailedError:
        self._kill()
        return WorkerFailedError(
            f"the worker of {self._arm.text} did not answer within {timeout_s:.0f} s and was killed{self._words()}",
            expected="an answer",
            remedy="try the workload alone: pytest perf/ --checkpoint NAME",
        )

    def _died(self) -> WorkerFailedError | OutOfMemoryError:
        try:
            code = self._process.wait(_QUIT_S)
        except subprocess.TimeoutExpired:
            self._kill()
            code = self._process.returncode
        words = self._words()
        # Nobody here killed it, so a SIGKILL is the kernel's, which is how Linux says that memory ran out.
        if code == -signal.SIGKILL or "out of memory" in words.lower() or "bad_alloc" in words.lower():
            return OutOfMemoryError(
                f"the worker of {self._arm.text} was killed, as when memory runs out{words}",
                expected="room for both arms at once: each holds the checkpoint",
                remedy="close other programs, or choose a smaller checkpoint",
            )
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return WorkerFailedError(
            f"the worker of {self._arm.text} {how}{words}", remedy="see its last words; run that arm alone to repeat it"
        )

    def _named(self, reply: Failed) -> PerfError:
        kind = error_class(reply.kind)
        words = self._words() if kind is WorkerFailedError else ""
        return kind(f"{self._arm.text}: {reply.found}{words}", expected=reply.expected, remedy=reply.remedy)

    def _words(self) -> str:
        with suppress(OSError, ValueError):
            size = self._said.seek(0, os.SEEK_END)
            self._said.seek(max(0, size - 4 * _OUTPUT_CHARACTERS))
            text = " | ".join(self._said.read().decode(errors="replace").split("\n")).strip(" |")
            return last_output(text)
        return ""


def last_output(text: str) -> str:
    """``; its last words: ...`` of what a process said, or nothing where it said nothing.

    Words are kept in records, which are committed: nobody's folders belong there.
    """
    if not text:
        return ""
    text = text.replace(str(Path.home()), "~").replace(tempfile.gettempdir(), "$TMPDIR")
    return f"; its last words: {text[-_OUTPUT_CHARACTERS:]}"


def error_class(name: str) -> type[PerfError]:
    """The class of a named error of another process; WorkerFailedError for a name that is none of ours."""
    named = getattr(errors, name, None)
    known = isinstance(named, type) and issubclass(named, PerfError)
    return named if known else WorkerFailedError  # type: ignore[return-value]
