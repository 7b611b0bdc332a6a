"""How many mutants of the judge and of the gate the tests notice: ``python -m studies.mutation RECORD``, from perf/.

A sample of all mutants (studies/mutation_sites.py), drawn by a seed, is tried one by one in copies of the checkout: the
tests of the room that was changed either fail, or the mutant survived. Mutants that change nothing a test could see are
argued one by one in docs/reliability/equivalent-mutants.toml. What RECORD holds is not tried again.
"""

import argparse
import datetime as dt
import math
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TextIO

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import in_checkout
from studies import carry_out
from studies.mutation_record import (
    EQUIVALENTS,
    GROUPS,
    KILLED,
    MUTATION,
    NAME,
    PACKAGE,
    SCHEMA,
    SURVIVED,
    TIMEOUT,
    Mutant,
    Mutation,
    equivalents,
    rows,
    score,
)
from studies.mutation_sites import Site, drawn, sites

_COPIED = ("perf", "tests", "baselines", "docs", "pyproject.toml", "CHANGELOG.md", "README.md")
_NO_TESTS, _MEMORY = 5, 12 << 30
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_LASTED = re.compile(r"^([\d.]+)s \w+ +([^:\s]+)::", re.MULTILINE)
# The judge's tests need no conftest, which imports MLX. Checks in processes take long, and are about the model.
_OPTIONS = {"stats": ("--noconftest",)}
_LEFT_OUT = ("tests/gate/test_check_processes.py",)


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of the checkout, in which one mutant at a time is tried."""

    root: Path

    @classmethod
    def of(cls, checkout: Path, root: Path) -> "Copy":
        """Copy what the tests need; its bytecode is believed by content, for texts change within a second here."""
        cls._folder(root).mkdir()
        for name in _COPIED:
            source = checkout / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__", "*.partial"))
            else:
                shutil.copy(source, root / name)
        compiled = (sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "perf", "tests")
        subprocess.run(compiled, cwd=root, check=True, capture_output=True)
        return cls(root)

    def twin(self, root: Path) -> "Copy":
        """Copy this copy, bytecode and all, which costs no compiling."""
        shutil.copytree(self.root, self._folder(root))
        return Copy(root)

    @staticmethod
    def _folder(root: Path) -> Path:
        """Make the folder around a copy, for temporary files; kernels that MLX compiled are there for all of them."""
        kernels = Path(tempfile.gettempdir()) / "mlx"
        for folder in (kernels, root.parent):
            folder.mkdir(exist_ok=True)
        (root.parent / "mlx").symlink_to(kernels)
        return root

    def test(self, group: str, files: Sequence[str], limit_s: float = 3600.0) -> tuple[int | None, str, float]:
        """Run files of a room's tests in their order; returns exit code (None: it hung), text, seconds."""
        options = ["-q", "-x", "-p", "no:cacheprovider", "--tb=no", "--durations=0", *_OPTIONS.get(group, ())]
        argv = [sys.executable, "-m", "pytest", *options, *files]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GIT_"))}
        environ = kept | {
            "PYTHONPATH": str(self.root / "perf"),
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",  # else many threads take more addresses than they may have
            **dict.fromkeys(("TMPDIR", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"), str(self.root.parent)),
        }
        began = time.monotonic()
        with subprocess.Popen(
            argv,
            cwd=self.root,
            env=environ,
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            if sys.platform == "linux":
                resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
            code: int | None = None
            said = ""
            try:
                with suppress(subprocess.TimeoutExpired):
                    said, _ = process.communicate(timeout=limit_s)
                    code = process.returncode
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return code, said, time.monotonic() - began

    def attempt(self, site: Site, files: Sequence[str], limit_s: float) -> tuple[str, str, float]:
        """Try a mutant on ``files`` of tests, its module's own first: outcome, the first test that failed, seconds.

        Raises NotMeasuredError where no test ran.
        """
        path = self.root / site.file
        text, own = path.read_text(encoding="utf-8"), f"/test_{path.stem}.py"
        path.write_text(site.apply(text), encoding="utf-8")
        try:
            ordered = sorted(files, key=lambda one: not one.endswith(own))
            code, said, seconds = self.test(path.parent.name, ordered, limit_s)
        finally:
            path.write_text(text, encoding="utf-8")
        if code == _NO_TESTS:
            raise NotMeasuredError(f"no test ran for {site.file}", remedy=said[-500:])
        noticed = _FAILED.search(said)
        outcome = TIMEOUT if code is None else SURVIVED if code == 0 else KILLED
        return outcome, noticed[1] if noticed and outcome == KILLED else "", round(seconds, 1)


@dataclass(frozen=True, slots=True)
class Usual:
    """How the tests of a room go as they are: ``seconds`` in all, and their ``files``, the quickest first."""

    seconds: float
    files: tuple[str, ...]


def usual(copy: Copy, group: str) -> Usual:
    """Run the tests of a room. Raises NotMeasuredError where they fail."""
    files = [one.relative_to(copy.root).as_posix() for one in sorted(copy.root.glob(f"tests/{group}/test_*.py"))]
    files = [one for one in files if one not in _LEFT_OUT] or [f"tests/{group}"]
    code, said, seconds = copy.test(group, files)
    if code != 0:
        failed = [*_FAILED.findall(said), *said.strip().splitlines()[-1:], "nothing"]
        raise NotMeasuredError(f"the tests of {group} fail as they are: {failed[0]}", remedy=f"pytest tests/{group}")
    lasted = defaultdict[str, float](float)
    for took, file in _LASTED.findall(said):
        lasted[file] += float(took)
    return Usual(seconds, tuple(sorted(files, key=lasted.__getitem__)))


def attempts(
    checkout: Path, todo: Sequence[Site], jobs: int, folder: Path, commit: str | None, time_s: float = math.inf
) -> Iterator[Mutant]:
    """Try mutants, ``jobs`` at a time, and yield each as it ends, for ``time_s``; what is tried then is not kept."""
    deadline, free = time.monotonic() + time_s, SimpleQueue[Copy]()
    first = Copy.of(checkout, folder / "0" / "checkout")
    groups = sorted({Path(one.file).parent.name for one in todo})
    crowded = max(1.0, jobs / (os.cpu_count() or 1))

    def attempt(site: Site) -> Mutant | None:
        copy, date = free.get(), dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        own = usually[Path(site.file).parent.name]
        left, limit = deadline - time.monotonic(), 30.0 + 5 * crowded * own.seconds
        try:
            if left <= 0:
                return None
            outcome, by, took = copy.attempt(site, own.files, min(left, limit))
        finally:
            free.put(copy)
        if outcome == TIMEOUT and left < limit:
            return None
        return Mutant(
            site.file, site.line, site.within, site.before, site.after, outcome, took, date, commit, by, site.nth
        )

    with ThreadPoolExecutor(jobs) as pool:
        usually = dict(zip(groups, pool.map(usual, [first] * len(groups), groups), strict=True))
        free.put(first)
        for twin in pool.map(first.twin, [folder / str(number) / "checkout" for number in range(1, jobs)]):
            free.put(twin)
        running = [pool.submit(attempt, one) for one in todo]
        try:
            yield from (found for done in as_completed(running) if (found := done.result()))
        finally:
            pool.shutdown(cancel_futures=True)


def main(argv: Sequence[str], out: TextIO) -> int:
    """Try what is missing of the sample; 1 where too few were noticed, or too many are argued to be equivalent."""
    parser = argparse.ArgumentParser(prog="python -m studies.mutation", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("record", type=Path, metavar="RECORD", help=f"usually docs/reliability/{NAME}")
    parser.add_argument("--mutants", type=int, default=600, metavar="N", help="size of the sample; default: 600")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which sample; default: 1")
    parser.add_argument("--group", choices=GROUPS, help="try only those of the sample that are in this room")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="at a time, each in a copy; default: 1")
    parser.add_argument("--time", type=float, metavar="SECONDS", default=math.inf, help="end after so many")
    parser.add_argument("--again", action="store_true", help="try those again that survived")
    parser.add_argument("--commit", metavar="ID", help="what the checkout is, where git cannot say; default: HEAD")
    args = parser.parse_args(argv)
    checkout = in_checkout("docs").parent
    every = sites(checkout, [f"{PACKAGE}/{group}" for group in GROUPS])
    if not 0 < args.mutants <= len(every) or args.jobs < 1:
        raise UsageError(f"--mutants {args.mutants} --jobs {args.jobs}", expected=f"1 to {len(every)}, and 1 or more")
    sample = drawn(every, args.seed)[: args.mutants]
    before = MUTATION.find(args.record)
    if before is not None and before.seed != args.seed:
        raise UsageError(f"{args.record} is of seed {before.seed}", expected="the same seed, or another record")
    keys = {one.key for one in sample}
    kept = {one.key: one for one in (before.mutants if before else ()) if one.key in keys}
    argued = equivalents(checkout / "docs" / "reliability" / EQUIVALENTS)
    again = {key for key, one in kept.items() if args.again and one.outcome == SURVIVED and key not in argued}
    todo = [one for one in sample if one.key not in kept or one.key in again]
    todo = [one for one in todo if args.group in (None, Path(one.file).parent.name)]
    todo.sort(key=lambda one: one.key not in again)
    population = {group: sum(Path(one.file).parent.name == group for one in every) for group in GROUPS}
    commit = args.commit or Repository(checkout).commit()
    with tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder:
        tried = attempts(checkout, todo, args.jobs, Path(folder), commit, args.time) if todo else ()
        for number, mutant in enumerate(tried, start=1):
            kept[mutant.key] = mutant
            ordered = tuple(kept[one.key] for one in sample if one.key in kept)
            MUTATION.write(args.record, Mutation(SCHEMA, args.seed, population, ordered))
            print(f"[{number}/{len(todo)}] {mutant.outcome}: {mutant}", file=out, flush=True)
    found = score(kept.values(), argued)
    print(rows(list(kept.values()), argued), file=out)
    for one in found.survivors:
        print(f"survived: {one}", file=out)
    return 0 if found.good else 1


if __name__ == "__main__":
    sys.exit(carry_out(main))
