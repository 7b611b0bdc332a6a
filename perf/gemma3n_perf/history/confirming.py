"""Steps put to duels, and what duels said: ``baselines/<class>/history/steps/<before>-<after>.json``, each a record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.duel.record import DUELS, DuelRecord
from gemma3n_perf.duel.run import DuelSpec, Here, duel, record_of
from gemma3n_perf.errors import PerfError, UsageError
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.history.series import Confirmation, Key, Series
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.store.files import SHORT_COMMIT

FOLDER = Path("history", "steps")


@dataclass(frozen=True, slots=True)
class Confirmed:
    """One duel of the commits ``before`` and ``after`` a step: its judgements by workload, and where it is kept."""

    before: str
    after: str
    judgements: Mapping[str, Judgement]
    path: Path


def path_of(baselines: Path, chip_class: str, before: str, after: str) -> Path:
    """Return where the duel of two commits is kept."""
    return baselines / chip_class / FOLDER / f"{before[:SHORT_COMMIT]}-{after[:SHORT_COMMIT]}.json"


def read_all(baselines: Path) -> tuple[dict[Key, Confirmation], tuple[str, ...]]:
    """Return all confirmations by (chip class, workload, before, after), and what was wrong with the other files."""
    found: dict[Key, Confirmation] = {}
    faults: list[str] = []
    for path in sorted(baselines.glob(f"*/{FOLDER.as_posix()}/*.json")):
        try:
            record = DUELS.read(path)
        except PerfError as error:
            faults.append(error.found)
            continue
        before, after = (_commit(record, arm) for arm in ("baseline", "candidate"))
        for one in record.duels:
            judged, key = one.judgement, (record.chip.chip_class, one.workload, before, after)
            found[key] = Confirmation(judged.verdict.value, judged.effect, judged.low, judged.high, record.date)
    return found, tuple(faults)


def _commit(record: DuelRecord, arm: str) -> str:
    # A worker does not know the commit of the tree it was started from; the arm's own words do.
    if record.arms[arm].startswith("ref:"):
        return record.arms[arm].removeprefix("ref:")
    return record.stacks[arm].commit or "" if arm in record.stacks else ""


def open_steps(listed: Sequence[Series], chip_class: str, workload: str | None) -> dict[tuple[str, str], list[str]]:
    """Return the workloads of each pair of commits with a step between them that no duel has decided."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for one in listed:
        for step in one.steps if one.chip_class == chip_class and workload in (None, one.workload) else ():
            if step.standing in ("suspected", "open"):
                pairs.setdefault((step.before, step.after), []).append(one.workload)
    return pairs


def named_commits(repository: Repository, named: Sequence[str]) -> tuple[str, str]:
    """Return two commits in full. Raises UsageError for what is no commit of ``repository``."""
    before, after = (repository.commit(one) for one in named)
    if before is None or after is None:
        missing = named[0] if before is None else named[1]
        raise UsageError(f"there is no commit {missing!r} here", expected="a commit of this repository")
    return before, after


def confirm(pairs: Mapping[tuple[str, str], Sequence[str]], here: Here, budget_s: float) -> Iterator[Confirmed]:
    """Duel the commits of each pair on its workloads and keep the record. The caller holds the measuring lock."""
    for (before, after), workloads in pairs.items():
        result = duel(DuelSpec(f"ref:{before}", (f"ref:{after}",), tuple(workloads), budget_s), here)
        path = path_of(here.baselines, here.chip.chip_class, before, after)
        DUELS.write(path, record_of(result, here.chip))
        yield Confirmed(before, after, result.judgements, path)
