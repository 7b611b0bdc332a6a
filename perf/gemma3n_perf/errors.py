"""What can go wrong, as one tree. The class decides the exit code, and the text is for readers alone.

PerfError
├── UsageError            exit 2: the request cannot be carried out
├── CountsChangedError    exit 1: an exact count rose
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

from functools import partial
from typing import ClassVar


class PerfError(Exception):
    """Base of every error this suite raises on purpose.

    ``found`` states the fact, ``expected`` what would have been right, ``remedy`` the next step.
    """

    exit_code: ClassVar[int] = 1
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


class CountsChangedError(PerfError):
    """An exact tripwire fired: graph nodes, streamed bytes or host calls rose."""


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
