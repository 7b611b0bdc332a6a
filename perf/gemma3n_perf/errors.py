"""What can go wrong, as one tree. The class decides the exit code, and the text is for readers alone.

PerfError                 exit 70: a fault of this suite itself, as for every error that is not in this tree
├── UsageError            exit 2: the request cannot be carried out
├── RegressionError       exit 1: a loss was shown, or an exact count rose
├── InconclusiveError     exit 3: what was measured shows nothing
├── NotMeasuredError      exit 4: nothing was measured, so nothing is claimed
│   ├── MachineBusyError
│   ├── BadConditionsError
│   ├── OutOfMemoryError
│   ├── DiskFullError
│   ├── CheckpointMissingError
│   ├── NoBaselineError
│   ├── WorkerFailedError
│   └── ArmUnavailableError
└── InvalidError          exit 5: what was found cannot be trusted or compared
    ├── CorruptCheckpointError
    ├── NonFiniteError
    ├── MalformedRecordError
    └── NotComparableError

Every error says what was found, what was expected and what to do next.
"""

import errno
import os
from functools import partial
from typing import ClassVar

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the system says where there is no room to write."""

_LACKING = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EIO, errno.ENOTDIR}

_MEMORY = ("alloc", "memory", "failed to map segment")
"""What MLX and the dynamic loader say of it, neither of which has a type of its own for it."""

_NO_TMPDIR = "temp_directory_path"
"""What MLX, which compiles there, says of a TMPDIR that is no folder."""


_COMPILING = "[Compile::eval_cpu]"
"""What MLX begins with where the compiler that it runs fails, whose words follow."""


class PerfError(Exception):
    """Base of every error this suite raises on purpose.

    ``found`` states the fact, ``expected`` what would have been right, ``remedy`` the next step.
    """

    exit_code: ClassVar[int] = 70  # EX_SOFTWARE of sysexits.h
    verdict: ClassVar[str | None] = None

    def __init__(self, found: str, *, expected: str | None = None, remedy: str | None = None) -> None:
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(self.__str__())

    def __str__(self) -> str:
        expected = f"\n  expected: {self.expected}" if self.expected else ""
        return self.found + expected + (f"\n  next: {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), expected=self.expected, remedy=self.remedy), (self.found,)


class UsageError(PerfError):
    """The request itself is wrong: an unknown name, an impossible combination, a value out of range."""

    exit_code = 2


class RegressionError(PerfError):
    """A loss was shown, or an exact count rose: graph nodes, streamed bytes or host calls."""

    exit_code = 1


class InconclusiveError(PerfError):
    """The budget was spent, and neither a change nor that there is none was shown."""

    exit_code = 3


class NotMeasuredError(PerfError):
    """No measurement took place, so there is no result, good or bad."""

    exit_code = 4
    verdict = "not-measured"


class MachineBusyError(NotMeasuredError):
    """Another measurement holds this machine's lock."""


class BadConditionsError(NotMeasuredError):
    """Too many runs were discarded: throttling, contention, battery or memory pressure."""


class OutOfMemoryError(NotMeasuredError):
    """The checkpoint or the run does not fit this machine's memory."""


class DiskFullError(NotMeasuredError):
    """No room to write; what existed before is untouched."""


class CheckpointMissingError(NotMeasuredError):
    """The checkpoint is not on disk and cannot be fetched from here."""


class NoBaselineError(NotMeasuredError):
    """This chip class has no stored measurement to compare with."""


class WorkerFailedError(NotMeasuredError):
    """A worker process crashed, hung or was killed; carries its last output."""


class ArmUnavailableError(NotMeasuredError):
    """An arm of a duel cannot be built here, for instance offline."""


class InvalidError(PerfError):
    """Something was found that must never enter a comparison."""

    exit_code = 5
    verdict = "invalid"


class CorruptCheckpointError(InvalidError):
    """A checkpoint's files are truncated, malformed or not Gemma3n."""


class NonFiniteError(InvalidError):
    """Weights or logits hold NaN or infinity."""


class MalformedRecordError(InvalidError):
    """A stored record does not parse or breaks its schema; it is never overwritten."""


class NotComparableError(InvalidError):
    """Two measurements differ in more than what is being compared."""


def named(error: BaseException) -> PerfError | None:
    """Return the named error for what a machine lacks, whoever noticed; None for a fault of the program."""
    if isinstance(error, PerfError):
        return error
    text = str(error).strip().partition("\n")[0]
    lacking = isinstance(error, RuntimeError | ImportError) and any(word in text.lower() for word in _MEMORY)
    if lacking or isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return OutOfMemoryError(
            f"no memory is left: {text or type(error).__name__}",
            expected="room for weights, KV cache and one prefill",
            remedy="close other programs, raise ulimit -v, or choose a smaller checkpoint or shape",
        )
    if text.startswith(_COMPILING):
        return _not_compiled(str(error))
    if not isinstance(error, OSError) and _NO_TMPDIR not in text:
        return None
    number = getattr(error, "errno", None)
    if number in FULL or text.endswith(" written"):  # numpy says how much it could write, and no more
        return DiskFullError(
            f"no room is left to write: {text}",
            expected="free space in the checkout, the cache, the user's data folder and TMPDIR",
            remedy="free some space and run the same command again; what was stored before is untouched",
        )
    if number in _LACKING or "temporary directory" in text or _NO_TMPDIR in text:
        return NotMeasuredError(
            f"the system refused: {text}",
            expected="folders that this user may write to, and files and processes within its limits",
            remedy="check the permissions and limits of what it names (a temporary folder: TMPDIR)",
        )
    return None


def _not_compiled(said: str) -> PerfError:
    """Say in one line why MLX could not compile a kernel for the CPU: its own words are a command of many lines."""
    lines = said.rpartition("the output is:")[2].strip().splitlines() or [said]
    if full := next((line for line in lines if os.strerror(errno.ENOSPC) in line), ""):
        return DiskFullError(
            f"no room is left to write: MLX compiles kernels: {full}",
            expected="free space in TMPDIR and in the cache",
            remedy="free some space, or set TMPDIR, and run the same command again",
        )
    return NotMeasuredError(
        f"MLX could not compile a kernel: {lines[0][:200]}",
        expected="a C++ compiler, and a TMPDIR and a cache with room that this user may write to",
        remedy="install one (g++), or set TMPDIR",
    )
