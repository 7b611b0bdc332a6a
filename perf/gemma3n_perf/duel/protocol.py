"""What a duel and its workers say to each other: requests and replies, one JSON object a line.

The names of fields are part of the protocol: workers of older commits read and write them too.
"""

import traceback
from contextlib import suppress
from typing import Any

import msgspec

from gemma3n_perf.errors import OutOfMemoryError, named

PROTOCOL, OLDEST = 13, 1
"""What this worker speaks, and the oldest that a duel still understands: 1 knows no ``tail`` of a block, 2 no ``slot``
(several arms in one process), 3 no block that is ``built``, 4 no ``variant`` of a prompt and no whole run,
5 cannot say what program it is, 6 times no prefill, 7 rewinds before every block,
8 knows no batch, no verification, and no run in which the KV cache grows, 9 has one engine, 10 decodes one text,
11 decodes a whole run as it goes on by itself, 12 gives no logits of a block."""

OFFSETS = 3
"""Start positions that variants of a prompt take turns at."""


class Load(msgspec.Struct, tag=True, frozen=True):
    """Inspect and load a workload's checkpoint for the arm in ``slot``. ``planted`` lengthens its blocks by that
    fraction; ``fusions`` are applied in order to a model that shares the weights of the other slots'. ``variant``
    numbers prompts of one shape, and start positions."""

    workload: str
    source: str
    root: str
    engine: str
    planted: float
    slot: str = ""
    fusions: tuple[str, ...] = ()
    variant: int = 0


class Prepare(msgspec.Struct, tag=True, frozen=True):
    """Decode the canary, prefill, and fix the position that every block starts from."""

    slot: str = ""


class Block(msgspec.Struct, tag=True, frozen=True):
    """Rewind and time ``steps`` decode steps, leaving the first ``drop`` and the last ``tail`` out of the result.
    ``built`` begins with the first step built and ends with another one built, ``settled`` when all that was started
    has ended. ``continued`` goes on where the ``built`` block before it ended instead of rewinding. ``text`` numbers
    what is decoded: what was learned of one is of no use for another."""

    steps: int
    drop: int
    tail: int = 0
    slot: str = ""
    built: bool = False
    settled: bool = False
    continued: bool = False
    text: int = -1


class WholeRun(msgspec.Struct, tag=True, frozen=True):
    """Time ``steps`` decode steps without a break after prompt ``variant``, and write the last logits to a file.
    ``forced`` are steps, from 1, that take that token of the prompt instead of the one decoded before them."""

    variant: int
    steps: int
    logits: str
    slot: str = ""
    forced: tuple[tuple[int, int], ...] = ()


class LastLogits(msgspec.Struct, tag=True, frozen=True):
    """Write the logits of the latest step that was built to a file, once it is computed."""

    logits: str
    slot: str = ""


class Prefill(msgspec.Struct, tag=True, frozen=True):
    """Time a prefill of the prompt into an empty KV cache, to the first token read."""

    slot: str = ""


class Describe(msgspec.Struct, tag=True, frozen=True):
    """Name the parts of the program that this process is, once it has decoded. ``checkpoints`` are digests by name."""

    checkpoints: dict[str, str]


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
    them where they are several; ``tokens`` what was decoded. ``peak_bytes`` is that of memory since the workload was
    loaded, ``kv_bytes`` the KV cache after the block. What an older worker does not report is empty or 0."""

    seconds: float
    tpot_s: float
    step_s: tuple[float, ...] = ()
    peak_bytes: int = 0
    kv_bytes: int = 0
    tokens: tuple[int, ...] = ()


class Whole(msgspec.Struct, tag=True, frozen=True):
    """A whole run: ``seconds`` of all its steps, its greedy tokens, and the type that logits are computed in."""

    seconds: float
    tokens: tuple[int, ...]
    dtype: str


class Written(msgspec.Struct, tag=True, frozen=True):
    """Logits are in the file; ``dtype`` is the type they are computed in."""

    dtype: str


class Prefilled(msgspec.Struct, tag=True, frozen=True):
    """A prefill: ``seconds`` to the first token; where ``fault`` says why it must not be timed, 0. ``peak_bytes`` and
    ``kv_bytes`` as after a block."""

    seconds: float
    peak_bytes: int
    kv_bytes: int
    fault: str = ""


class Program(msgspec.Struct, tag=True, frozen=True):
    """The parts of the program that a worker is, by name (see ``installed``)."""

    parts: dict[str, str]


class Failed(msgspec.Struct, tag=True, frozen=True):
    """A named error: ``kind`` is its class in gemma3n_perf.errors."""

    kind: str
    found: str
    expected: str | None = None
    remedy: str | None = None


Request = Load | Prepare | Block | WholeRun | LastLogits | Prefill | Describe | Quit
Reply = Hello | Loaded | Prepared | Timed | Whole | Written | Prefilled | Program | Failed


def failed(error: Exception) -> Failed:
    """Put an error into a reply; one without a name leaves its traceback on standard error too."""
    found = named(error)
    if found is not None and (found is error or not isinstance(found, OutOfMemoryError)):
        return Failed(type(found).__name__, found.found, found.expected, found.remedy)
    with suppress(OSError):  # standard error is a file, and its disk may be full
        traceback.print_exception(error)
    text = next(iter(str(error).splitlines()), "")
    memory = isinstance(error, MemoryError) or any(word in text.lower() for word in ("alloc", "out of memory"))
    kind = "OutOfMemoryError" if memory else "WorkerFailedError"
    return Failed(kind, f"{type(error).__name__}: {text}".rstrip(": "))
