"""What a measuring machine does for one pull request: is it fit, is it the right one, and then every touched fusion.

Opinion: measuring succeeds when there is evidence, whatever that says. A loss is the gate's business; a red job here
means that a machine needs a person.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from gemma3n_perf.ci.artifacts import MANIFEST, Manifest
from gemma3n_perf.errors import NotComparableError, NotMeasuredError, PerfError, UsageError
from gemma3n_perf.gate.record import path_of, read
from gemma3n_perf.store.files import write_over


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """What a job was sent to measure. ``out`` must not exist: what an earlier job left there is not this one's."""

    chip_class: str
    commit: str
    run_id: str
    run_attempt: int
    baselines: Path
    out: Path


def measure(
    order: MeasureRequest, here: str, names: Sequence[str], pytest: Callable[[str], int], say: Callable[[str], None]
) -> tuple[Path, ...]:
    """Measure ``names`` on this machine of class ``here`` and put their evidence into ``order.out``, with a manifest.

    ``pytest`` measures one fusion and returns pytest's exit code. Raises NotComparableError on a machine of another
    class, UsageError where ``out`` exists, NotMeasuredError where a fusion brought no fresh evidence of this commit.
    """
    if here != order.chip_class:
        raise NotComparableError(
            f"this runner was asked for {order.chip_class} and is {here}",
            expected="a runner whose label is its chip class",
            remedy="correct its labels: gemma3n-perf chip names the class, docs/runners.md the way",
        )
    if order.out.exists():
        raise UsageError(
            f"{order.out} exists", expected="a folder of this job alone", remedy="remove it, or name another"
        )
    missing, paths = [], []
    for name in names:
        kept = path_of(order.baselines, here, name)
        before = kept.read_bytes() if kept.is_file() else None
        code = pytest(name)
        say(f"{name}: pytest ended with {code}")
        why = _not_fresh(kept, before, order.commit)
        if why is not None:
            missing.append(f"{name}: {why} (pytest ended with {code})")
            continue
        order.out.mkdir(parents=True, exist_ok=True)
        paths.append(order.out / f"{name}.json")
        shutil.copyfile(kept, paths[-1])
    if missing:
        raise NotMeasuredError(
            "; ".join(missing), expected="evidence of every touched fusion", remedy="see what pytest says above"
        )
    manifest = Manifest(1, here, order.commit, order.run_id, order.run_attempt, tuple(names))
    write_over(order.out / MANIFEST, msgspec.json.encode(manifest))
    return (*paths, order.out / MANIFEST)


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
