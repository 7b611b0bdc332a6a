"""Duels of the commits on both sides of a step: ``baselines/<class>/history/steps/<before>-<after>.json``."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from gemma3n_perf.duel.record import DUELS, DuelRecord
from gemma3n_perf.duel.run import DuelSpec, Here, choose_workloads, duel, record_of
from gemma3n_perf.errors import UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.history.series import Key, Series
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.codec import usable
from gemma3n_perf.store.files import SHORT_COMMIT

FOLDER = Path("history", "steps")
Pair = tuple[str, str]
"""The commits before and after a step."""


def read_all(baselines: Path) -> tuple[dict[Key, tuple[Judgement, str]], list[str]]:
    """Return what duels of steps said, and when, and what was wrong with the other files."""
    found: dict[Key, tuple[Judgement, str]] = {}
    faults: list[str] = []
    for path in sorted(baselines.glob(f"*/{FOLDER.as_posix()}/*.json")):
        record = usable(partial(DUELS.read, path), faults)
        if record is None:
            continue
        before, after = (_commit(record, arm) for arm in ("baseline", "candidate"))
        for one in record.duels:
            found[record.chip.chip_class, one.workload, before, after] = one.judgement, record.date
    return found, faults


def _commit(record: DuelRecord, arm: str) -> str:
    # A worker does not know the commit of the tree it was started from; the arm's own words do.
    if record.arms[arm].startswith("ref:"):
        return record.arms[arm].removeprefix("ref:")
    return record.stacks[arm].commit or "" if arm in record.stacks else ""


def open_steps(listed: Sequence[Series], chip_class: str, workload: str | None) -> dict[Pair, list[str]]:
    """Return the workloads of each pair of commits with a step between them that no duel has decided."""
    pairs: dict[Pair, list[str]] = {}
    for one in listed:
        for step in one.steps if one.chip_class == chip_class and workload in (None, one.workload) else ():
            if step.standing in ("suspected", "open"):
                pairs.setdefault((step.before, step.after), []).append(one.workload)
    return pairs


def named_commits(repository: Repository, named: Sequence[str]) -> Pair:
    """Return two commits in full. Raises UsageError for what is no commit of ``repository``."""
    before, after = (repository.commit(one) for one in named)
    if before is None or after is None:
        missing = named[0] if before is None else named[1]
        raise UsageError(f"there is no commit {missing!r} here", expected="a commit of this repository")
    return before, after


def confirm(
    pairs: Mapping[Pair, Sequence[str]], here: Here, budget_s: float
) -> Iterator[tuple[Pair, Mapping[str, Judgement], Path]]:
    """Duel the commits of each pair on its workloads and keep the record: the pair, its judgements, and where it is.

    The caller holds the measuring lock.
    """
    for (before, after), listed in pairs.items():
        workloads, sources = choose_workloads(listed, None, here)
        result = duel(DuelSpec(f"ref:{before}", (f"ref:{after}",), workloads, budget_s, sources=sources), here)
        name = f"{before[:SHORT_COMMIT]}-{after[:SHORT_COMMIT]}.json"
        path = DUELS.write(here.baselines / here.chip.chip_class / FOLDER / name, record_of(result, here.chip))
        yield (before, after), result.judgements, path
