"""What fusions say of themselves, asked of processes of their own.

Importing a fusion may do anything to the process that imports it, so the process that judges fusions imports none: it
takes them from here. Files and digests are read, as ``registry`` reads them.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

import msgspec

from gemma3n_perf.errors import InvalidError, PerfError, UsageError
from gemma3n_perf.fusions import registry
from gemma3n_perf.fusions.registry import digest, files, names, unseen
from gemma3n_perf.hardware.lifetime import end_with
from gemma3n_perf.hardware.replies import reply_stream, with_package
from gemma3n_perf.hardware.types import Chip

__all__ = ["digest", "enabled", "env", "files", "names", "unseen"]

LIMIT_S = 120.0
"""How long importing a fusion may take."""
ARGV = (sys.executable, "-P", "-m", "gemma3n_perf.fusions.declarations")


class Declaration(msgspec.Struct, frozen=True):
    """The variables to set before a process applies a fusion, and whether it is on for the chip asked about."""

    env: dict[str, str]
    enabled: bool | None = None


class _Fault(msgspec.Struct, frozen=True):
    """The named error that kept a fusion from declaring anything."""

    kind: str
    found: str
    expected: str | None = None
    remedy: str | None = None


_Task = tuple[int, str, Chip | None]
"""The id of the process that asks, a fusion's name, and a chip."""
_Reply = tuple[Declaration | None, _Fault | None]


def enabled(name: str, chip: Chip) -> bool:
    """Whether a fusion is on for a chip; a composition where every part is.

    Raises UsageError for an unknown name or parts that cannot be composed, InvalidError for what cannot be imported.
    """
    return _declared(name, digest(name), chip).enabled is True


def env(name: str) -> dict[str, str]:
    """Return the variables to set before a process applies a fusion; raises what ``enabled`` does."""
    return dict(_declared(name, digest(name), None).env)


@cache
def _declared(name: str, sources: str, chip: Chip | None) -> Declaration:
    """Ask, once for each state of the ``sources``."""
    return ask(ARGV, name, chip)


def ask(argv: Sequence[str], name: str, chip: Chip | None, limit_s: float = LIMIT_S) -> Declaration:
    """Start a process that imports the fusion, and return what it replies. Raises UsageError, InvalidError."""
    task: _Task = (os.getpid(), name, chip)
    try:
        done = subprocess.run(
            argv, input=msgspec.json.encode(task), capture_output=True, timeout=limit_s, check=False,
            env=with_package(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _broken(name, f"importing it did not end within {limit_s:g} s") from None
    if done.returncode:
        raise _broken(name, f"importing it ended its process with exit code {done.returncode}")
    try:
        reply: _Reply = msgspec.json.decode(done.stdout, type=_Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _broken(name, f"importing it replied what is no declaration: {error}") from None
    declaration, fault = reply
    if fault is not None:
        kind = UsageError if fault.kind == UsageError.__name__ else InvalidError
        raise kind(fault.found, expected=fault.expected, remedy=fault.remedy)
    if declaration is None:
        raise _broken(name, "importing it declared nothing")
    return declaration


def _broken(name: str, found: str) -> InvalidError:
    return InvalidError(f"{name}: {found}", expected="a module that defines FUSION", remedy="mend it, or take it away")


def _reply(name: str, chip: Chip | None) -> _Reply:
    try:
        return Declaration(registry.get(name).env, registry.enabled(name, chip) if chip else None), None
    except PerfError as error:
        return None, _Fault(type(error).__name__, error.found, error.expected, error.remedy)


def main() -> None:
    """Reply on standard output to what standard input asks; what a fusion prints goes to standard error."""
    replies = reply_stream()
    parent, name, chip = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    end_with(parent)
    with replies:
        replies.write(msgspec.json.encode(_reply(name, chip)))


if __name__ == "__main__":
    main()
