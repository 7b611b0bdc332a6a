"""Options that several commands share: one name and one meaning each. Names of earlier releases work on, unlisted."""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, TypeVar

import msgspec

from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.report.dry_run import at_most, dry_run
from gemma3n_perf.store.baselines import MIN_SESSIONS
from gemma3n_perf.store.files import write_over
from gemma3n_perf.workload.workload import defaults

STDOUT = Path("-")
_Number = TypeVar("_Number", int, float)
_OF_RECORDS = {"content_digest", "machine_info"}
"""Keys of evidence and of sessions, which nothing else is to write over."""
MOST_SESSIONS = 1_000
"""More sessions than this nobody records by one command: each takes half a minute or longer."""
WEEK_S = 604_800
"""Nobody measures, or waits for a machine, longer than this."""


def seconds(option: str, *, least: float = math.ulp(0.0)) -> Callable[[str], float]:
    """Return what reads an option's seconds, a week at most. It raises UsageError, before anything is opened."""
    return _number(
        option, float, least, WEEK_S, f"seconds{', 0 or more' if least <= 0 else ' above 0'}, a week at most"
    )


def percent(option: str) -> Callable[[str], float]:
    """Return what reads an option's percentage above 0. It raises UsageError."""
    return _number(option, float, math.ulp(0.0), 100.0, "per cent above 0, 100 at most, for instance 1")


def count(option: str, *, least: int = 1, most: int = 1_000_000) -> Callable[[str], int]:
    """Return what reads a whole number of an option. It raises UsageError."""
    return _number(option, int, least, most, f"a whole number, {least} or more, {most} at most")


def days(option: str) -> Callable[[str], float]:
    """Return what reads an option's days, 0 or more. It raises UsageError."""
    return _number(option, float, 0.0, 100_000.0, "days, 0 or more, 100000 at most")


def _number(
    option: str, kind: Callable[[str], _Number], least: float, most: float, expected: str
) -> Callable[[str], _Number]:
    def read(text: str) -> _Number:
        with suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        raise UsageError(f"{option} {text[:40]}", expected=expected)

    return read


def add_sessions(parser: argparse.ArgumentParser) -> None:
    """Declare how many sessions are recorded."""
    parser.add_argument(
        "--sessions", type=count("--sessions", most=MOST_SESSIONS), default=MIN_SESSIONS, metavar="N",
        help="default: %(default)s",
    )  # fmt: skip


def add_json(parser: argparse.ArgumentParser, what: str = "the result") -> None:
    """Declare where JSON goes: a file, beside the text, or standard output in its place."""
    parser.add_argument(
        "--json", type=_no_record, nargs="?", const=STDOUT, metavar="FILE|-",
        help=f"write {what} as JSON; -, or nothing, is standard output in place of the text",
    )  # fmt: skip


def _no_record(text: str) -> Path:
    """Refuse what was given to be read, and would be written over: an option takes the word that follows it."""
    path, found = Path(text), None
    with suppress(OSError, ValueError, RecursionError):
        found = msgspec.json.decode(path.read_bytes()) if path.is_file() else None
    if isinstance(found, dict) and found.keys() & _OF_RECORDS:
        raise UsageError(
            f"--json {text} holds a record", expected="a file to write to", remedy=f"--json - {text}, or another file"
        )
    return path


def write_json(path: Path | None, data: bytes, out: TextIO) -> bool:
    """Write what ``--json`` asks for. Says whether it took the place of the text. Raises DiskFullError."""
    if path is None:
        return False
    if path == STDOUT:
        out.write(data.decode().rstrip("\n") + "\n")
        return True
    write_over(path, data)
    return False


@contextmanager
def printed_anyway(text: str, out: TextIO) -> Iterator[None]:
    """Print ``text``, minutes of measuring, where it cannot be written as was asked."""
    try:
        yield
    except PerfError:
        out.write(text)
        raise


def file_of(path: Path | None) -> Path | None:
    """Return the file that ``--json`` names, None for standard output."""
    return None if path == STDOUT else path


def add_alias(parser: argparse.ArgumentParser, old: str, new: str) -> None:
    """Let an option's ``old`` name go on working. Help and completion show the ``new`` one alone."""
    action = next(one for one in parser._actions if new in one.option_strings)
    kind = {"action": "store_true"} if action.nargs == 0 else {"type": action.type, "nargs": action.nargs}
    parser.add_argument(old, dest=action.dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **kind)


def add_explain(parser: argparse.ArgumentParser) -> None:
    """Declare the dry run of a command that measures."""
    parser.add_argument("--explain", action="store_true", help="say what would be measured, and how long; do nothing")


def explain(
    out: TextIO, what: str, ids: Sequence[str], each_s: float | None, *, duels: int = 1, pauses_s: float = 0.0
) -> int:
    """Say what a command would measure: ``duels`` of ``each_s`` seconds on each workload. Returns 0.

    Raises UsageError for an id that is none.
    """
    from gemma3n_perf.decode.engines import requested  # not for a gate of pages alone: it brings NumPy

    names = [str(requested(text)) for text in ids] or [str(defaults(detect().vendor)[0])]
    how_long = [] if each_s is None else [at_most(len(names), each_s, duels=duels, pauses_s=pauses_s)]
    print(dry_run(what, names, *how_long), file=out)
    return 0
