"""Running git, uv and what the operating system brings. The standard library alone: trusted CI steps import this."""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gemma3n_perf.errors import PerfError

_TIMED_OUT, MISSING = 124, 127
"""Exit codes of what did not end in time, and of what could not be started; timeout(1) and shells have the same."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended: exit code, standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def last_output(self) -> str:
        """The last lines of what it said, for an error message."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return " ".join(lines[-3:])[-400:] or f"exit code {self.code}"

    def checked(
        self, error: type[PerfError], found: str, *, expected: str | None = None, remedy: str | None = None
    ) -> str:
        """Return standard output of a command that succeeded; else raise ``error``, which quotes the last output."""
        if self.code:
            raise error(f"{found}: {self.last_output}", expected=expected, remedy=remedy)
        return self.out


Run = Callable[[Sequence[str], float], Done]


def run_command(argv: Sequence[str], timeout_s: float) -> Done:
    """Run a command and wait up to ``timeout_s`` seconds for it; never raises for what the command does."""
    # A git hook points GIT_DIR at another repository than the one meant.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            list(argv), capture_output=True, env=environ | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL, timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Done(_TIMED_OUT, "", f"{argv[0]} did not end within {timeout_s:.0f} s")
    except OSError as error:
        return Done(MISSING, "", f"{argv[0]}: {error.strerror or error}")
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
