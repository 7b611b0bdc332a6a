"""Faults that happen to a real duel of nano: ``python -m studies.faults``, from perf/ of a checkout.

The duel has 25 % planted, so the truth is known. Each trial has a home, a clone of the commit and one fault at one
moment. It is right when the command ends in time with a designed exit code and no traceback, leaves no process, no
half-written record and no change in the checkout, and says loss or nothing. The record grows by a trial at a time, and
what it holds is not tried again.
"""

import argparse
import datetime as dt
import fnmatch
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TextIO

import psutil

from gemma3n_perf.errors import NotComparableError, UsageError
from gemma3n_perf.hardware.chip import detect
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.lock import holder_elsewhere
from gemma3n_perf.hardware.stack import current_stack, in_checkout, suite_checkout
from gemma3n_perf.report.markdown import table
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS, checkpoints_root
from studies import (
    carry_out,
    faults_of_commands,
    faults_of_files,
    faults_of_processes,
    faults_of_settings,
    faults_of_surroundings,
)
from studies.faults_fault import Fault
from studies.faults_place import Place
from studies.faults_record import FAULTS, MOMENTS, NAME, SCHEMA, Faults, Outcome, Trial, wrongs
from studies.faults_victim import COMMAND, Missed, Victim

FAMILIES = {
    "processes": faults_of_processes.faults,
    "surroundings": faults_of_surroundings.faults,
    "files": faults_of_files.faults,
    "settings": faults_of_settings.faults,
    "commands": faults_of_commands.faults,
}
ATTEMPTS = 3
"""A moment may pass before it is seen."""
FREE_S = 120.0
"""How long a trial waits for a machine that somebody else measures."""
KERNELS = Path(tempfile.gettempdir()) / "mlx" / metadata.version("mlx")
"""Where MLX keeps what it compiled for a CPU: each trial would compile all of it again, which takes seconds."""
_BUSY = "this machine is being measured by"
_LOCKED = "lock-held"


def catalog() -> dict[str, tuple[Fault, ...]]:
    """Return all faults by family."""
    return {name: tuple(faults()) for name, faults in FAMILIES.items()}


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials of a run share: a clone at ``commit`` with its ``tracked`` files, below ``folder``, and nano.

    What the commands say is added to ``log``."""

    folder: Path
    checkpoint: Path
    tracked: tuple[str, ...]
    commit: str
    log: Path = Path(os.devnull)

    @classmethod
    def set_up(cls, folder: Path, log: Path = Path(os.devnull)) -> "Bench":
        """Clone the checkout, and forge nano where it is missing. Raises UsageError outside a checkout."""
        root = suite_checkout()
        commit = Repository(root).commit() if root else None
        if root is None or commit is None:
            raise UsageError("this is no checkout", expected="a clone of the repository, which every trial copies")
        template, nano = folder / "template", PRESETS["nano"]
        for argv in (
            ("git", "clone", "--quiet", "--shared", str(root), str(template)),
            (sys.executable, "-m", "compileall", "-q", str(template / "perf" / "gemma3n_perf")),
        ):
            subprocess.run(argv, check=True, capture_output=True)
        ensure_forged(nano, checkpoints_root())
        names = tuple(Repository(template).git("ls-files", "-z").out.rstrip("\0").split("\0"))
        return cls(folder, checkpoints_root() / nano.directory, names, commit, log)

    def attempt(self, fault: Fault, moment: str) -> Trial:
        """Try a fault once."""
        root = Path(tempfile.mkdtemp(prefix="trial-", dir=self.folder))
        victim = Victim(Place(root, self.folder / "template", self.tracked))
        date, began, found = dt.datetime.now(dt.UTC), time.monotonic(), None
        struck, missed = began, fault.needs()
        try:
            if not missed:
                victim.place.make()
                fault.prepare(victim)
                victim.place.fill(self.checkpoint, None if fault.cold else KERNELS)
                if moment == "before":
                    fault.strike(victim)
                victim.start()
                struck = time.monotonic()
                if moment != "before":
                    if not victim.reach(moment, fault.name, fault.limit_s):
                        raise Missed(f"the moment did not come: {victim.finish(1.0).said}")
                    struck = time.monotonic()
                    fault.strike(victim)
                    victim.halt(False)
                found = victim.finish(fault.limit_s, fault.touches)
        except Missed as error:
            missed = str(error)
        except (OSError, subprocess.SubprocessError, psutil.Error) as error:
            missed = f"the fault could not be made: {error}"
        finally:
            victim.end()
            victim.place.remove()
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"== {fault.name}, {moment}\n{found.err if found else missed}\n{found.out if found else ''}\n")
        head = (fault.name, moment, date.isoformat(timespec="seconds"), self.commit)
        seconds = round(time.monotonic() - began, 1)
        if _BUSY in (found.err if found else missed) and not fault.name.startswith(_LOCKED):
            missed = "somebody else measured"
        if found is None or missed:
            return Trial(*head, seconds=seconds, missed=missed.replace(str(root), "")[:200])
        return judged(Trial(*head, seconds=seconds, after_s=round(victim.ended_at - struck, 1)), fault, found, root)


def judged(trial: Trial, fault: Fault, found: Outcome, root: Path) -> Trial:
    """Return a trial with what was found in it; of ``root``, its folder, nothing is kept."""
    return Trial(
        trial.fault, trial.moment, trial.date, trial.commit, found.exit_code, trial.seconds, trial.after_s,
        found.verdict, found.said.replace(str(root), ""),
        tuple(one.replace(str(root), "") for one in wrongs(found, fault.limit_s, fault.ends)),
    )  # fmt: skip


def chosen(only: Sequence[str], moments: Sequence[str]) -> list[tuple[Fault, str]]:
    """Return faults with their moments, as asked for. Raises UsageError for what there is none of."""
    known = [one for family in catalog().values() for one in family]
    names, found = {one.name for one in known}, list[Fault]()
    for pattern in only or ("*",):
        if not fnmatch.filter(names, pattern):
            raise UsageError(f"no fault is named {pattern}", expected="a name or pattern of --list")
        found += [one for one in known if fnmatch.fnmatchcase(one.name, pattern) and one not in found]
    if wrong := [one for one in moments if one not in MOMENTS]:
        raise UsageError(f"no moment is named {wrong[0]}", expected=", ".join(MOMENTS))
    return [(fault, moment) for fault in found for moment in fault.moments if not moments or moment in moments]


def summary(record: Faults) -> Iterator[str]:
    """Yield a table of the families, in Markdown, and a line for each trial that was not right."""
    family_of = {fault.name: name for name, family in catalog().items() for fault in family}
    rows = []
    for name in FAMILIES:
        own = [one for one in record.trials if family_of.get(one.fault) == name]
        rows.append((name, *counts(own)))
    header = ("faults of", "faults", "trials", "exit codes", "verdicts", "slowest end", "wrong", "not tried")
    yield table(header, [*rows, ("all", *counts(record.trials))], left=("faults of", "exit codes", "verdicts"))
    for one in record.trials:
        if one.wrong:
            yield f"wrong: {one.fault}, {one.moment}: {'; '.join(one.wrong)} ({one.said})"


def counts(trials: Iterable[Trial]) -> tuple[str, ...]:
    """Faults, trials, exit codes, verdicts, slowest end, wrong ones and those that could not be tried, as text."""
    every = list(trials)
    tried = [one for one in every if not one.missed]
    codes = Counter("none" if one.exit_code is None else str(one.exit_code) for one in tried)
    verdicts = Counter(one.verdict for one in tried if one.verdict)
    return (
        str(len({one.fault for one in tried})), str(len(tried)), _listed(codes), _listed(verdicts),
        f"{max((one.after_s for one in tried), default=0):.0f} s", str(sum(bool(one.wrong) for one in tried)),
        str(len(every) - len(tried)),
    )  # fmt: skip


def _listed(found: Counter[str]) -> str:
    return ", ".join(f"{name} x{count}" for name, count in sorted(found.items())) or "-"


def opened(path: Path | None) -> tuple[Path, Faults]:
    """Return the record that is gone on with, and where it is. Raises NotComparableError for another machine's."""
    # Asking a GPU what it is opens it, and no duel measures beside a process that has.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        chip, stack = pool.apply(detect), pool.apply(current_stack, (suite_checkout(),))
    path = path or in_checkout("baselines") / chip.chip_class / NAME
    record = FAULTS.find(path) or Faults(SCHEMA, chip, stack, " ".join(("gemma3n-perf", *COMMAND, "FILE")))
    if record.chip.chip_class != chip.chip_class:
        raise NotComparableError(f"{path} is of {record.chip.chip_class}", expected=f"trials of {chip.chip_class}")
    return path, record


def main(argv: Sequence[str], out: TextIO) -> int:
    """Try what is missing, print the table; 1 where anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m studies.faults", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this fault, or a pattern of names")
    parser.add_argument("--moments", action="append", default=[], metavar="NAME", help=f"of {', '.join(MOMENTS)}")
    parser.add_argument("--list", action="store_true", help="name the faults and their moments, and do nothing")
    parser.add_argument("--record", type=Path, metavar="FILE", help=f"default: baselines/<class>/{NAME}")
    parser.add_argument("--log", type=Path, default=Path(os.devnull), metavar="FILE", help="all that the commands say")
    parser.add_argument("--most", type=int, metavar="N", help="at most so many trials this time")
    parser.add_argument("--again", action="store_true", help="try what the record holds, too")
    args = parser.parse_args(argv)
    requested = chosen(args.only, args.moments)
    if args.list:
        for fault in dict.fromkeys(fault for fault, _ in requested):
            print(f"{fault.name:26} {fault.what} ({', '.join(m for f, m in requested if f is fault)})", file=out)
        print(f"{len({fault.name for fault, _ in requested})} faults, {len(requested)} trials", file=out)
        return 0
    path, record = opened(args.record)
    done = set() if args.again else {one.key for one in record.tried}
    left = [(fault, moment) for fault, moment in requested if (fault.name, moment) not in done][: args.most]
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        bench = Bench.set_up(Path(folder).resolve(), args.log) if left else None
        for number, (fault, moment) in enumerate(left, start=1):
            assert bench is not None
            for _ in range(ATTEMPTS):
                deadline = time.monotonic() + FREE_S
                while holder_elsewhere() and time.monotonic() < deadline:
                    time.sleep(1.0)
                trial = bench.attempt(fault, moment)
                if not trial.missed or fault.needs():
                    break
            record = record.with_trial(trial)
            path.parent.mkdir(parents=True, exist_ok=True)
            FAULTS.write(path, record)
            print(f"[{number}/{len(left)}] {said(trial)}", file=out, flush=True)
    print("\n".join(summary(record)), file=out)
    return int(any(one.wrong for one in record.trials))


def said(trial: Trial) -> str:
    """Return a line on a trial."""
    ended = f"exit {trial.exit_code} after {trial.after_s:.1f} s" + (f", {trial.verdict}" if trial.verdict else "")
    what = f"not tried: {trial.missed}" if trial.missed else ended
    return f"{trial.fault}, {trial.moment}: {what}{''.join(f'; WRONG: {one}' for one in trial.wrong)}"


if __name__ == "__main__":
    sys.exit(carry_out(main))
