"""One arm of a duel in a process of its own: loads, prepares and times blocks on request, and sleeps in between.

Speaks one JSON object a line on the descriptors it was started with as standard input and output; what libraries
print goes to standard error. Imports nothing of the suite before it is asked to work: over a commit that has no
worker, this file is run with that commit's package (``python -P worker.py``).
"""

import gc
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

PROTOCOL, OLDEST = 4, 1
"""What this worker speaks, and the oldest that a duel still understands: 1 knows no ``tail`` of a block, 2 no ``slot``
(several arms in one process), 3 no block that is ``built``."""


class Load(msgspec.Struct, tag=True, frozen=True):
    """Inspect and load a workload's checkpoint for the arm in ``slot``. ``planted`` lengthens its blocks by that
    fraction; ``fusions`` are applied in order to a model that shares the weights of the other slots'."""

    workload: str
    source: str
    root: str
    engine: str
    planted: float
    slot: str = ""
    fusions: tuple[str, ...] = ()


class Prepare(msgspec.Struct, tag=True, frozen=True):
    """Decode the canary, prefill, and fix the position that every block starts from."""

    slot: str = ""


class Block(msgspec.Struct, tag=True, frozen=True):
    """Rewind and time ``steps`` decode steps, leaving the first ``drop`` and the last ``tail`` out of the result.
    ``built`` begins with the first step built and ends with another one built."""

    steps: int
    drop: int
    tail: int = 0
    slot: str = ""
    built: bool = False


class Quit(msgspec.Struct, tag=True, frozen=True):
    """End the process."""


class Hello(msgspec.Struct, tag=True, frozen=True):
    """The first line of a worker: the protocol it speaks, and the software it runs (a ``Stack`` in JSON)."""

    protocol: int
    pid: int
    stack: dict[str, Any]


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """What was loaded; both arms must agree in all of it."""

    checkpoint_digest: str
    prompt_digest: str
    prompt_tokens: int
    generated_tokens: int
    soft_tokens: str | None


class Prepared(msgspec.Struct, tag=True, frozen=True):
    """Names the greedy tokens that decode gives."""

    token_digest: str


class Timed(msgspec.Struct, tag=True, frozen=True):
    """A block: ``seconds`` of all its steps, ``tpot_s`` seconds per token over those that count, and ``step_s`` each of
    them where they are several; a worker of an older commit does not tell."""

    seconds: float
    tpot_s: float
    step_s: tuple[float, ...] = ()


class Failed(msgspec.Struct, tag=True, frozen=True):
    """A named error: ``kind`` is its class in gemma3n_perf.errors."""

    kind: str
    found: str
    expected: str | None = None
    remedy: str | None = None


Request = Load | Prepare | Block | Quit
Reply = Hello | Loaded | Prepared | Timed | Failed


class Sessions(Protocol):
    """What the worker does its work with, so that tests need no model."""

    def load(self, request: Load) -> tuple[Loaded, Any]:
        """Return the facts and a decode session, not yet prepared."""

    def stack(self) -> dict[str, Any]:
        """Return the software of this process."""

    def protocol(self) -> int:
        """Return what the sessions can be asked for."""


class RealSessions:
    """The suite's own decode sessions, on mlx-vlm."""

    def __init__(self) -> None:
        self._checkpoints: dict[tuple[str, str, str], tuple[Any, Any, Any, Loaded]] = {}
        self._sessions: dict[tuple[object, ...], Any] = {}

    def load(self, request: Load) -> tuple[Loaded, Any]:
        """Load with mlx-vlm; slots of one checkpoint share its weights, and slots that differ in nothing but a plant
        their session. Raises what loading raises."""
        import time

        from gemma3n_perf.decode.decoder import DecodeSession, MlxDevice
        from gemma3n_perf.decode.engines.mlx_vlm import MlxVlmEngine
        from gemma3n_perf.errors import UsageError

        if request.engine != "mlx_vlm":
            raise UsageError(f"this commit has no engine {request.engine!r}", expected="mlx_vlm")
        workload, asked, model, loaded = self._checkpoint(request)
        key = (request.workload, request.source, request.root, request.fusions)
        if key not in self._sessions:
            if request.fusions:
                from gemma3n_perf.fusions import registry, sharing

                model = sharing.share(model)
                registry.compose("+".join(request.fusions)).apply(model)
            self._sessions[key] = DecodeSession(
                MlxVlmEngine(model), workload, asked, clock=time.perf_counter, device=MlxDevice()
            )
        return loaded, self._sessions[key]

    def _checkpoint(self, request: Load) -> tuple[Any, Any, Any, Loaded]:
        import hashlib
        from pathlib import Path

        from gemma3n_perf.decode import prompt
        from gemma3n_perf.workload import load
        from gemma3n_perf.workload.workload import Workload

        key = (request.workload, request.source, request.root)
        if key not in self._checkpoints:
            workload = Workload.parse(request.workload)
            checkpoint = load.inspect(request.source, Path(request.root))
            asked = prompt.make(workload, checkpoint)
            model = load.load(checkpoint, with_towers=asked.pixels is not None)
            digest = hashlib.sha256(asked.ids.tobytes())
            for part in (asked.pixels, asked.soft):
                digest.update(b"" if part is None else part.tobytes())
            loaded = Loaded(
                checkpoint.digest, digest.hexdigest()[:16], len(asked.ids), workload.shape.generate, asked.soft_tokens
            )
            self._checkpoints[key] = (workload, asked, model, loaded)
        return self._checkpoints[key]

    def stack(self) -> dict[str, Any]:
        """Ask this process's packages and environment."""
        from gemma3n_perf.hardware.stack import current_stack, suite_checkout

        built: dict[str, Any] = msgspec.to_builtins(current_stack(suite_checkout()))
        return built

    def protocol(self) -> int:
        """Less than this file's where the package is an older commit's."""
        import inspect

        from gemma3n_perf.decode.decoder import DecodeSession

        return PROTOCOL if "built" in inspect.signature(DecodeSession.run).parameters else 3


class _NoProbe:
    """Conditions are read by the process that runs the duel, around the block, the same for both arms."""

    def start(self) -> None:
        """Do nothing."""

    def stop(self) -> None:
        """Know nothing."""


def serve(requests: Iterable[bytes], reply: Callable[[Reply], None], sessions: Sessions) -> None:
    """Answer every request, in order, until Quit or the end of ``requests``. A failure is an answer too."""
    try:
        reply(Hello(sessions.protocol(), os.getpid(), sessions.stack()))
    except Exception as error:
        reply(failed(error))
        return
    decode = msgspec.json.Decoder(Request).decode
    slots: dict[str, tuple[Any, float]] = {}
    prepared: list[Any] = []
    for line in requests:
        try:
            request = decode(line)
            match request:
                case Quit():
                    return
                case Load():
                    loaded, session = sessions.load(request)
                    slots[request.slot] = session, request.planted
                    reply(loaded)
                case Prepare():
                    session, _ = slots[request.slot]
                    if not any(session is one for one in prepared):
                        session.prepare()
                        prepared.append(session)
                        # What was built until here lives as long as the process: no collection need look at it.
                        gc.collect()
                        gc.freeze()
                    reply(Prepared(session.token_digest()))
                case Block():
                    reply(_timed(*slots[request.slot], request))
        except Exception as error:
            reply(failed(error))


def _timed(session: Any, planted: float, block: Block) -> Timed:
    # Over a commit from before slots, a session takes no plant, and over one from before built blocks none of those.
    extra = {"planted": planted} if planted else {}
    extra |= {"built": True} if block.built else {}
    run, tokens = session.run(_NoProbe(), steps=block.steps, **extra)
    session.same_tokens(tokens)
    counted = run.step_s[block.drop : len(run.step_s) - block.tail]
    each = tuple(round(time, 9) for time in counted) if len(counted) > 1 else ()
    return Timed(run.seconds, sum(counted) / len(counted), each)


def failed(error: Exception) -> Failed:
    """Put an error into a reply; what has no name is told with its traceback on standard error."""
    if hasattr(error, "found"):
        return Failed(type(error).__name__, str(error.found), getattr(error, "expected", None),
                      getattr(error, "remedy", None))  # fmt: skip
    traceback.print_exception(error)
    text = next(iter(str(error).splitlines()), "")
    memory = isinstance(error, MemoryError) or any(word in text.lower() for word in ("alloc", "out of memory"))
    kind = "OutOfMemoryError" if memory else "WorkerFailedError"
    return Failed(kind, f"{type(error).__name__}: {text}".rstrip(": "))


def main() -> None:
    """Take the standard descriptors for the conversation, and give libraries standard error instead."""
    import faulthandler

    faulthandler.enable()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    encode = msgspec.json.Encoder().encode

    def reply(answer: Reply) -> None:
        data = encode(answer) + b"\n"
        while data:
            data = data[os.write(replies, data) :]

    serve(requests, reply, RealSessions())


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(0)
