"""What is kept of faults that were tried, ``baselines/<class>/faults.json``, and when a trial was right."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.codec import Codec, Flaw

NAME = "faults.json"
SCHEMA = 1
MOMENTS = {
    "before": "before the command is started",
    "opening": "before the machine is opened: half a second of CPU time after the start",
    "starting": "while the arms of the first launch start",
    "measuring": "in the first launch",
    "between": "between the first launch and the second",
    "writing": "while the record is written: its partial file is there",
    "random": "after a time drawn from the fault's name",
}
DESIGNED = frozenset({1, 2, 3, 4, 5, 130})
"""Exit codes that may follow. Not 0, which would deny the planted loss, and not 70, a fault of the program."""
PLANTED = "here+plant:+25%"
_FALSE = (Verdict.WIN.value, Verdict.NO_CHANGE.value)
_VERDICT = re.compile(rf"^({'|'.join(Verdict)})\b", re.MULTILINE)
_TTFT_LOSS = re.compile(rf"^TTFT: {Verdict.LOSS.value}\b", re.MULTILINE)
_TRACEBACK = re.compile(r"Traceback \(most recent call last\):[ \r]*\n")


class Trial(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fault at one moment. ``exit_code`` is negative for a signal, None where the command had to be ended.

    ``seconds`` are those of the whole trial, ``after_s`` those from the fault to the end of the command. ``said`` is
    its last line, ``wrong`` what it did that it may not, and ``missed`` why the fault was not tried, "" where it was.
    """

    fault: str
    moment: str
    date: str
    commit: str | None
    exit_code: int | None = None
    seconds: float = 0.0
    after_s: float = 0.0
    verdict: str = ""
    said: str = ""
    wrong: tuple[str, ...] = ()
    missed: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it another trial."""
        return self.fault, self.moment


class Faults(msgspec.Struct, frozen=True):
    """All trials on one machine; ``command`` is what was run, in words."""

    schema: int
    chip: Chip
    stack: Stack
    command: str
    trials: tuple[Trial, ...] = ()

    @property
    def tried(self) -> tuple[Trial, ...]:
        """The trials in which the fault happened."""
        return tuple(one for one in self.trials if not one.missed)

    def with_trial(self, trial: Trial) -> "Faults":
        """Return the record with a trial, in place of the last one of its fault and moment."""
        others = (one for one in self.trials if one.key != trial.key)
        return msgspec.structs.replace(self, trials=(*others, trial))


def _flaws(record: Faults) -> Iterator[Flaw]:
    keys = [one.key for one in record.trials]
    if len(set(keys)) != len(keys):
        yield Flaw("a fault was tried twice at one moment")
    for number, one in enumerate(record.trials):
        if one.moment not in MOMENTS:
            yield Flaw(f"the moment {one.moment!r}", " or ".join(MOMENTS), f"$.trials[{number}].moment")
        if one.missed and (one.wrong or one.verdict):
            yield Flaw("a fault that was not tried was judged", place=f"$.trials[{number}].missed")


_EXPECTED, _REMEDY = "what python -m studies.faults writes", "restore it from version control, or begin again"
FAULTS = Codec(Faults, SCHEMA, _EXPECTED, _REMEDY, flaws=_flaws)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left: exit code (None: it had to be ended), its words, processes that went on, changed files.

    ``record`` is the verdict in the record that it was to write, "" where there is none, None where it is no record;
    ``partial`` are names of files that were left half-written.
    """

    exit_code: int | None
    out: str = ""
    err: str = ""
    orphans: tuple[str, ...] = ()
    touched: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    record: str | None = ""

    @property
    def verdict(self) -> str:
        """The verdict that was stored, else the one that was printed, else ""."""
        printed = _VERDICT.search(self.out)
        return self.record or (printed[1] if printed else "")

    @property
    def said(self) -> str:
        """The last line that was written, on standard error where there is one."""
        for text in (self.err, self.out):
            lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
            if lines:
                return next((line for line in lines if line.startswith("gemma3n-perf")), lines[-1])[:160]
        return ""


def wrongs(found: Outcome, limit_s: float, ends: frozenset[int] = frozenset()) -> Iterator[str]:
    """Yield what a command did that it may not. ``ends`` are the exit codes that this fault alone may have."""
    code = found.exit_code
    if code is None:
        yield f"it did not end within {limit_s:.0f} s"
    elif code not in DESIGNED | ends:
        yield f"exit code {code}" if code >= 0 else f"it ended by signal {-code}"
    if code == 1 and found.verdict != Verdict.LOSS.value and not _TTFT_LOSS.search(found.out):
        yield "exit code 1 without a loss"
    if _TRACEBACK.search(found.out) or _TRACEBACK.search(found.err):
        yield "a traceback"
    said = {found.record, *_VERDICT.findall(found.out)}
    yield from (f"the verdict {one}" for one in _FALSE if one in said)
    if found.record is None:
        yield "a record that cannot be read"
    # Whoever is killed cannot clear away; a name that ends in .partial is nobody's record.
    if found.partial and (code or 0) > 0:
        yield f"left half-written: {', '.join(found.partial)}"
    if found.orphans:
        yield f"still running: {', '.join(found.orphans)}"
    if found.touched:
        yield f"changed in the checkout: {', '.join(found.touched[:3])}"
