"""The tests on the oldest and the newest packages that are admitted: ``python -m studies.versions RECORD``, from perf/.

Each environment is made anew by uv: the oldest mlx, mlx-vlm and pytest that pyproject.toml admits on the oldest Python,
and the newest on every Python. Tests of what leans on those packages are run in it. An environment that cannot be made
here, for want of a Python or of the package index, is said to be missing, in plain words, and counts as nothing.
"""

import argparse
import datetime as dt
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec
from packaging.requirements import Requirement

from gemma3n_perf.duel.environments import find_uv
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import in_checkout
from gemma3n_perf.report.markdown import table
from gemma3n_perf.store.codec import Codec
from studies import carry_out

NAME = "versions.json"
SCHEMA = 1
PACKAGES = ("mlx", "mlx-vlm", "pytest")
PYTHONS = ("3.11", "3.12", "3.13")
TESTS = (
    "tests/decode",
    "tests/fusions",
    "tests/workload",
    "tests/pytest_plugin",
    "tests/profile",
    "tests/gate/test_checks.py",
    "tests/duel/test_worker.py",
    "tests/bench/test_stored.py",
)
"""What imports mlx and mlx-vlm, or is a plugin of pytest."""
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped)\b")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
_VERSIONS = (
    "import json,sys; from importlib.metadata import version as v; print(json.dumps({p: v(p) for p in sys.argv[1:]}))"
)
_LIMIT_S = 3600.0


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """One environment: counts of tests by outcome and the names of those that failed, or why it is ``missing``."""

    name: str
    python: str
    date: str
    commit: str | None
    versions: dict[str, str] = {}
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: tuple[str, ...] = ()
    missing: str = ""


class Versions(msgspec.Struct, frozen=True):
    """The last run of each environment."""

    schema: int
    tests: tuple[str, ...]
    tested: tuple[Tried, ...] = ()

    def with_one(self, tested: Tried) -> "Versions":
        """Return the record with an environment, in place of its last run."""
        others = {one.name: one for one in self.tested} | {tested.name: tested}
        return msgspec.structs.replace(self, tested=tuple(others[name] for name in sorted(others)))


VERSIONS = Codec(Versions, SCHEMA, "what python -m studies.versions writes", "restore it, or begin again")


class _MissingError(Exception):
    """An environment cannot be made here."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A Python with the newest packages, or with the ``oldest`` of those that matter."""

    python: str
    oldest: bool = False

    @property
    def name(self) -> str:
        """What it is called, for instance py3.11-oldest."""
        return f"py{self.python}-{'oldest' if self.oldest else 'newest'}"


ENVIRONMENTS = (Environment(PYTHONS[0], oldest=True), *map(Environment, PYTHONS))


def oldest(project: Path) -> list[str]:
    """Return requirements of the oldest releases that a pyproject.toml admits. Raises UsageError where it says none."""
    declared = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    bounds = {one.name: one.specifier for one in map(Requirement, declared)}
    found = []
    for name in PACKAGES:
        lowest = [one.version for one in bounds.get(name, ()) if one.operator in (">=", "==", "~=")]
        if len(lowest) != 1:
            raise UsageError(f"{project}: no oldest {name} is said", expected=f'"{name}>=VERSION" among dependencies')
        found.append(f"{name}=={lowest[0]}")
    return found


def make(environment: Environment, checkout: Path, folder: Path) -> Path:
    """Make an environment in ``folder`` and return its Python. Raises _MissingError."""
    project, python = checkout / "pyproject.toml", folder / "bin" / "python"
    exact = oldest(project) if environment.oldest else []
    extra = ("--extra", "cpu") if sys.platform == "linux" else ()
    for argv in (
        ("venv", "--quiet", "--no-project", "--python", environment.python, str(folder)),
        ("pip", "install", "--quiet", "--python", str(python), "--requirement", str(project), *extra, *exact),
    ):
        done = subprocess.run((find_uv(), *argv), capture_output=True, text=True, check=False, cwd=folder.parent)
        if done.returncode:
            said = " ".join(done.stderr.split())
            what = f"no Python {environment.python}" if argv[0] == "venv" else "its packages cannot be installed"
            raise _MissingError(f"{what}: {said[-300:]}")
    return python


def test(environment: Environment, checkout: Path, tests: Sequence[str], folder: Path) -> Tried:
    """Make an environment below ``folder``, run the tests in it, and return what came of them."""
    date, commit = dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), Repository(checkout).commit()
    head = (environment.name, environment.python, date, commit)
    try:
        python = make(environment, checkout, folder / environment.name)
    except _MissingError as error:
        return Tried(*head, missing=str(error))
    found = subprocess.run((python, "-c", _VERSIONS, *PACKAGES), capture_output=True, text=True, check=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GIT_"))}
    environ = kept | {"PYTHONPATH": str(checkout / "perf"), "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    began = time.monotonic()
    try:
        done = subprocess.run(
            (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *tests),
            cwd=checkout,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_LIMIT_S,
        )
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, said = -1, f"ERROR it-did-not-end-within-{_LIMIT_S:.0f}-s"
    (folder / f"{environment.name}.log").write_text(said, encoding="utf-8")
    return judged(head, msgspec.json.decode(found.stdout), code, said, time.monotonic() - began)


def judged(head: tuple[str, str, str, str | None], versions: dict[str, str], code: int, said: str, s: float) -> Tried:
    """Return what a run of pytest came to; one that ended in any other way than by failed tests has failed once."""
    counts = {kind.removesuffix("s"): int(n) for n, kind in _COUNT.findall((said.strip().splitlines() or [""])[-1])}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    failures = tuple(dict.fromkeys(_FAILED.findall(said)))
    if code not in (0, 1) or (code == 1 and not failed) or not counts.get("passed"):
        failed, failures = failed or 1, (*failures, f"pytest ended with exit code {code}")
    return Tried(*head, versions, counts.get("passed", 0), failed, counts.get("skipped", 0), round(s, 1), failures[:20])


def rows(record: Versions) -> str:
    """Return a table of the environments, as Markdown."""
    cells = [
        (
            one.name,
            *(one.versions.get(name, "-") for name in PACKAGES),
            *map(str, counts),
            one.date[:10],
            "not tested here" if one.missing else f"{one.seconds / 60:.0f} min",
        )
        for one in record.tested
        for counts in ((one.passed, one.failed, one.skipped),)
    ]
    header = ("environment", *PACKAGES, "passed", "failed", "skipped", "date", "time")
    return table(header, cells, left=("environment",))


def faults(record: Versions) -> Iterator[str]:
    """Yield what failed and what is missing, as sentences."""
    for one in record.tested:
        if one.failed:
            yield f"{one.name}: {one.failed} failed: {', '.join(one.failures)}"
        if one.missing:
            yield f"{one.name} was not tested: {one.missing}"


def main(argv: Sequence[str], out: TextIO) -> int:
    """Test every environment, print the table; 1 where a test failed, 4 where no environment could be made."""
    parser = argparse.ArgumentParser(prog="python -m studies.versions", description=(__doc__ or "").replace("``", ""))
    parser.add_argument("record", type=Path, metavar="RECORD", help=f"usually docs/reliability/{NAME}")
    parser.add_argument("--only", action="append", choices=[one.name for one in ENVIRONMENTS], help="may be repeated")
    parser.add_argument("--tests", action="append", metavar="PATH", help="in place of those of the packages")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what pytest says there")
    args = parser.parse_args(argv)
    checkout, tests = in_checkout("docs").parent, tuple(args.tests or TESTS)
    before = VERSIONS.find(args.record)
    record = before if before is not None and before.tests == tests else Versions(SCHEMA, tests)
    chosen = [one for one in ENVIRONMENTS if args.only is None or one.name in args.only]
    for environment in chosen:
        with tempfile.TemporaryDirectory(prefix="versions-", ignore_cleanup_errors=True) as folder:
            record = record.with_one(test(environment, checkout, tests, Path(folder).resolve()))
            if args.logs:
                args.logs.mkdir(parents=True, exist_ok=True)
                for log in Path(folder).glob("*.log"):
                    (args.logs / log.name).write_bytes(log.read_bytes())
        args.record.parent.mkdir(parents=True, exist_ok=True)
        VERSIONS.write(args.record, record)
    print(rows(record), *faults(record), sep="\n", file=out)
    now = [one for one in record.tested if one.name in {each.name for each in chosen}]
    if any(one.failed for one in now):
        return 1
    return 4 if all(one.missing for one in now) else 0


if __name__ == "__main__":
    sys.exit(carry_out(main))
