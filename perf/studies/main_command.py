"""How often the commands that compare are right, and how long they take: planted slowdowns, unchanged code.

``python -m studies.main_command FILE --planted-25 10 --planted-5 20 --unchanged 20`` runs
``pytest perf/ --benchmark-compare`` as a user does until FILE holds so many runs of each case, one after the other, and
prints the table; what FILE holds is not repeated. ``--slower-2``, ``--faster-2``, ``--same`` and
``--release`` are duels of one workload of 24 s of measuring.
"""

import argparse
import datetime as dt
import multiprocessing
import os
import random
import re
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import msgspec
from scipy.stats import binomtest

from gemma3n_perf.errors import MalformedRecordError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import current_stack, suite_checkout
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.files import write_over
from studies import carry_out

_MAIN = ("pytest", "perf/", "--benchmark-compare")
_DUEL = ("gemma3n_perf", "duel", "--budget", "24")
CASES: dict[str, tuple[Verdict, tuple[str, ...]]] = {
    "planted-25": (Verdict.LOSS, (*_MAIN, "--plant-slowdown", "25%")),
    "planted-5": (Verdict.LOSS, (*_MAIN, "--plant-slowdown", "5%")),
    "unchanged": (Verdict.NO_CHANGE, (*_MAIN, "--measure-anyway")),
    "slower-2": (Verdict.LOSS, (*_DUEL, "here", "here+plant:+2%")),
    "faster-2": (Verdict.WIN, (*_DUEL, "here+plant:+2%", "here")),
    "same": (Verdict.NO_CHANGE, (*_DUEL, "here", "here", "--aa")),
    "release": (Verdict.LOSS, (*_DUEL, "mlx==0.32.0", "mlx==0.32.1")),
}
"""What is true in each case, and the command. The releases lie 2 to 3 % apart: docs/findings.md."""
_ROW = re.compile(rf"^ (\S+/\S+/\S+) .* ({'|'.join(Verdict)})\s*$", re.MULTILINE)


class Run(msgspec.Struct, frozen=True):
    """One run of the command: seconds of wall time, its exit code, and the verdict on each workload."""

    case: str
    date: str
    commit: str | None
    wall_s: float
    exit_code: int
    verdicts: dict[str, str]

    @property
    def is_right(self) -> bool:
        """Whether it said what is true: of a loss exit 1, where not every workload must show it; else every verdict."""
        found, truth = set(self.verdicts.values()), CASES[self.case][0]
        return self.exit_code == 1 and Verdict.WIN not in found if truth is Verdict.LOSS else found == {truth}

    @property
    def is_wrong(self) -> bool:
        """Whether it said what is not true."""
        claims = {Verdict.LOSS, Verdict.WIN, Verdict.NO_CHANGE} - {CASES[self.case][0]}
        return not claims.isdisjoint(self.verdicts.values())


class Series(msgspec.Struct, frozen=True):
    """All runs on one machine."""

    schema: int
    chip: Chip
    stack: Stack
    workloads: tuple[str, ...]
    runs: tuple[Run, ...] = ()


def table(series: Series) -> Iterator[str]:
    """Yield the rows of the table, in Markdown."""
    yield "| case | runs | right [95 %] | wrong | exit codes | wall time: median, most |"
    yield "| --- | ---: | ---: | ---: | --- | ---: |"
    for case in CASES:
        own = [one for one in series.runs if one.case == case]
        if not own:
            continue
        right = sum(one.is_right for one in own)
        low, high = binomtest(right, len(own)).proportion_ci(method="exact")
        codes = ", ".join(f"{code} x{count}" for code, count in sorted(Counter(one.exit_code for one in own).items()))
        walls = sorted(one.wall_s for one in own)
        times = f"{walls[len(walls) // 2]:.0f} s, {walls[-1]:.0f} s"
        wrong = sum(one.is_wrong for one in own)
        yield f"| {case} | {len(own)} | {right} [{low:.0%}, {high:.0%}] | {wrong} | {codes} | {times} |"


def run(case: str, options: Sequence[str], log: Path) -> Run:
    """Run the command once; its output goes to ``log``."""
    argv = (sys.executable, "-m", *CASES[case][1], *options)
    begun = time.monotonic()
    found = subprocess.run(
        argv, cwd=suite_checkout(), env=os.environ | {"COLUMNS": "160"}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    with log.open("a") as file:
        file.write(found.stdout)
    verdicts = dict(_ROW.findall(found.stdout))
    date, repo = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), suite_checkout()
    commit = Repository(repo).commit() if repo else None
    return Run(case, date, commit, round(time.monotonic() - begun, 1), found.returncode, verdicts)


def main(argv: Sequence[str], out: TextIO) -> int:
    """Run what is missing, print the table. Raises MalformedRecordError for a record that cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m studies.main_command", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="the record, which grows")
    for case in CASES:
        parser.add_argument(f"--{case}", type=int, default=0, metavar="N", help="runs of this case there shall be")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), metavar="FILE", help="all output")
    parser.add_argument("--options", type=shlex.split, default=[], metavar="TEXT", help="more options of pytest")
    args = parser.parse_args(argv)
    series = _read(args.file)
    while True:
        counts = Counter(one.case for one in series.runs)
        missing = [case for case in CASES if counts[case] < getattr(args, case.replace("-", "_"))]
        if not missing:
            break
        one = run(random.choice(missing), args.options, args.log)
        workloads = tuple(sorted({*series.workloads, *one.verdicts}))
        series = msgspec.structs.replace(series, workloads=workloads, runs=(*series.runs, one))
        write_over(args.file, msgspec.json.format(msgspec.json.encode(series), indent=1) + b"\n")
        print(f"{one.case}: exit {one.exit_code} in {one.wall_s:.0f} s, {one.verdicts}", file=sys.stderr)
    out.writelines(f"{row}\n" for row in table(series))
    return 0


def _head() -> Series:
    return Series(1, detect(), current_stack(suite_checkout()), ())


def _read(path: Path) -> Series:
    if not path.exists():
        # Asking a GPU what it is opens it, and the command refuses to measure beside another process that has.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_head)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Series)
    except msgspec.MsgspecError as error:
        raise MalformedRecordError(f"{path}: {error}", expected="a record of this study") from error


if __name__ == "__main__":
    sys.exit(carry_out(main))
