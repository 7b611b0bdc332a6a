"""Recording sessions for a baseline: whole ``pytest perf/`` runs, each in a fresh process, one after the other."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.store.local import data_folder


def run_pytest(command: Sequence[str]) -> int:
    """Run one session in a fresh interpreter, its output on this terminal; returns its exit code."""
    return subprocess.run([sys.executable, "-m", "pytest", *command], check=False).returncode


def perf_folder() -> Path:
    """Return the folder of the bench files: beside this package in a checkout, else ``perf`` in the current folder."""
    beside = Path(__file__).parents[2]
    return beside if (beside / "conftest.py").is_file() else Path("perf")


@dataclass(frozen=True, slots=True)
class Recorder:
    """What recording needs of the world: how to run pytest, what to run, and where sessions are stored."""

    run: Callable[[Sequence[str]], int] = run_pytest
    perf: Path = field(default_factory=perf_folder)
    data: Path = field(default_factory=data_folder)

    def stored(self) -> set[Path]:
        """Return all session files of this machine."""
        return set((self.data / "sessions").glob("*/[0-9]*_*.json"))


def save(sessions: int, options: Sequence[str], out: TextIO, recorder: Recorder) -> int:
    """Record ``sessions`` sessions and print the command that promotes them.

    Raises NotMeasuredError where a session fails or stores nothing; what was stored before it is kept and listed,
    after Ctrl-C too.
    """
    if sessions < 1:
        raise UsageError(f"{sessions} sessions were asked for", expected="1 or more", remedy="pass --sessions 5")
    if any(option.startswith("--plant") for option in options):
        raise UsageError("a planted slowdown cannot be saved", remedy="leave out --plant-slowdown")
    before = recorder.stored()
    try:
        for index in range(1, sessions + 1):
            _session(index, sessions, options, out, recorder)
    finally:
        _conclude(sorted(recorder.stored() - before), out)
    return 0


def _session(index: int, sessions: int, options: Sequence[str], out: TextIO, recorder: Recorder) -> None:
    out.write(f"session {index} of {sessions}\n")
    out.flush()
    before = recorder.stored()
    code = recorder.run([str(recorder.perf), *options])
    if code != 0:
        raise NotMeasuredError(
            f"session {index} of {sessions} ended with exit code {code}",
            expected="a session that measures every workload",
            remedy="its own output says why; put that right and record the missing sessions",
        )
    if not recorder.stored() - before:
        raise NotMeasuredError(
            f"session {index} of {sessions} stored nothing in {recorder.data / 'sessions'}",
            expected="one new session file",
            remedy="leave out options that measure nothing, such as --collect-only or -k",
        )


def _conclude(files: Sequence[Path], out: TextIO) -> None:
    out.write(f"\n{len(files)} session{'' if len(files) == 1 else 's'} stored\n")
    classes: dict[str, list[Path]] = {}
    for path in files:
        classes.setdefault(path.parent.name, []).append(path)
    for name, paths in classes.items():
        listed = " \\\n".join(f"  {shlex.quote(str(path))}" for path in paths)
        out.write(f"to make them the baseline of {name}:\ngemma3n-perf baseline promote \\\n{listed}\n")
