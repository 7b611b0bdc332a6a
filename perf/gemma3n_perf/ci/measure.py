"""What a measuring machine does: for a pull request, base against head and every touched fusion; every night, main
against what was, and sending all that it recorded.

Measuring succeeds when there is evidence, whatever that says. A loss is the gate's business; a red job here means that
a machine needs a person.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from gemma3n_perf.bench import regression
from gemma3n_perf.bench.regression import REGRESSIONS, Regression, workloads_of
from gemma3n_perf.ci.artifacts import COMPARISON, MANIFEST, Manifest
from gemma3n_perf.duel.run import choose_workloads, machine
from gemma3n_perf.errors import NotComparableError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.gate.change import Checkout, parts, touched, touched_names
from gemma3n_perf.gate.policy import POLICY_FILE, read_policy
from gemma3n_perf.gate.record import path_of, read
from gemma3n_perf.store.files import local_folder, write_over
from gemma3n_perf.store.noise import NAME as NOISE


def names_to_measure(base: str, here: Checkout) -> tuple[str, ...]:
    """Return what the gate will ask evidence of, as far as it exists. Raises as ``gate.change`` does."""
    sources = here.sources()
    names = touched_names(touched(base, here.repository, here.baselines), here, sources)
    return tuple(name for name in names if set(parts(name)) <= set(sources.names()))


def require_class(here: str, requested: str) -> None:
    """Raise NotComparableError on a machine of another class than its runner's label says."""
    if here != requested:
        raise NotComparableError(
            f"this runner was asked for {requested} and is {here}",
            expected="a runner whose label is its chip class",
            remedy="correct its labels: gemma3n-perf chip names the class, docs/runners.md the way",
        )


def base_against_head(base: str, here: Checkout) -> Regression:
    """Compare a commit with this tree, by the policy that lies here. Raises as ``bench.regression.measure`` does."""
    policy = read_policy(here.baselines / POLICY_FILE)
    with machine(here.baselines, sys.stderr) as opened:
        workloads, _ = choose_workloads(workloads_of(policy, opened.chip.chip_class, opened.chip.vendor), None, opened)
        return regression.measure(base, workloads, policy, opened, here.repository)


def measure(
    request: Manifest,
    here: str,
    baselines: Path,
    out: Path,
    pytest: Callable[[str], int],
    say: Callable[[str], None],
    compare: Callable[[], Regression] | None = None,
) -> tuple[Path, ...]:
    """Measure what a ``request`` names on this machine of class ``here``; evidence and manifest go into ``out``.

    ``pytest`` measures one fusion and returns pytest's exit code; ``compare`` compares base and head, where the request
    asks for it. Raises NotMeasuredError where a fusion brought no fresh evidence of this commit, and UsageError where
    ``out`` exists: what an earlier job left there is not this one's.
    """
    if out.exists():
        raise UsageError(f"{out} exists", expected="a folder of this job alone", remedy="remove it, or name another")
    missing, paths = [], []
    if request.regression and compare is not None:
        found = compare()
        say(f"base against head: {_outcome(found)}")
        out.mkdir(parents=True, exist_ok=True)
        paths.append(REGRESSIONS.write(out / COMPARISON, found))
    for name in request.fusions:
        kept = path_of(baselines, here, name)
        before = kept.read_bytes() if kept.is_file() else None
        code = pytest(name)
        say(f"{name}: pytest ended with {code}")
        why = _not_fresh(kept, before, request.commit)
        if why is not None:
            missing.append(f"{name}: {why} (pytest ended with {code})")
            continue
        out.mkdir(parents=True, exist_ok=True)
        paths.append(Path(shutil.copyfile(kept, out / f"{name}.json")))
    if missing:
        raise NotMeasuredError(
            "; ".join(missing), expected="evidence of every touched fusion", remedy="see what pytest says above"
        )
    write_over(out / MANIFEST, msgspec.json.encode(request))
    return (*paths, out / MANIFEST)


def _outcome(found: Regression) -> str:
    if found.duel is not None:
        return ", ".join(f"{one.workload}: {one.judgement.verdict}" for one in found.duel.duels)
    return f"{found.failure.verdict}: {found.failure.found}" if found.failure else "nothing"


def _not_fresh(path: Path, before: bytes | None, commit: str) -> str | None:
    """Say why a file is no evidence of this run; None if it is."""
    if not path.is_file():
        return "it left no evidence"
    if path.read_bytes() == before:
        return "it left only the evidence that was there before"
    try:
        found = read(path)
    except PerfError as error:
        return error.found
    return None if found.commit == commit else f"its evidence is of commit {(found.commit or 'unknown')[:12]}"


def pack(chip_class: str, baselines: Path, out: Path, data: Path | None = None) -> tuple[Path, ...]:
    """Copy this machine's sessions of ``chip_class``, and its noise floor, into ``out``; returns what is there.

    The layout is that of the user's data folder: ``sessions/<chip class>/``. All are sent every night, so no job needs
    a token that can write; promotion into ``baselines/`` is a person's commit. Raises NotMeasuredError with no session.
    """
    sessions = sorted(path for path in local_folder(chip_class, data).glob("[0-9]*.json") if path.is_file())
    if not sessions:
        raise NotMeasuredError(
            f"this machine has no session of {chip_class}",
            expected="what gemma3n-perf baseline save records",
            remedy="see the log of the step that measures",
        )
    copies = {out / "sessions" / chip_class / path.name: path for path in sessions}
    noise = baselines / chip_class / NOISE
    if noise.is_file():
        copies[out / "noise" / chip_class / NOISE] = noise
    for target, source in copies.items():
        copy(source, target)
    return tuple(copies)


def copy(source: Path, target: Path) -> None:
    """Copy a file into a folder that need not exist yet. Not shutil.copytree's way: its error hides a full disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
