"""What duels said of steps: ``baselines/<class>/history/steps/<before>-<after>.json``, each a duel's whole record."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.duel import record as duels
from gemma3n_perf.errors import PerfError
from gemma3n_perf.store.files import SHORT_COMMIT

FOLDER = Path("history", "steps")


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A duel's word on one step: the verdict on the later commit, ``effect`` in throughput with a 95 % interval."""

    chip_class: str
    workload: str
    before: str
    after: str
    verdict: str
    effect: float | None
    low: float | None
    high: float | None
    date: str


def path_of(baselines: Path, chip_class: str, before: str, after: str) -> Path:
    """Return where the duel of two commits is kept."""
    return baselines / chip_class / FOLDER / f"{before[:SHORT_COMMIT]}-{after[:SHORT_COMMIT]}.json"


def read_all(baselines: Path) -> tuple[dict[tuple[str, str, str, str], Confirmed], tuple[str, ...]]:
    """Return all confirmations by (chip class, workload, before, after), and what was wrong with the other files."""
    found: dict[tuple[str, str, str, str], Confirmed] = {}
    faults: list[str] = []
    for path in sorted(baselines.glob(f"*/{FOLDER.as_posix()}/*.json")):
        try:
            for one in _of(duels.read(path)):
                found[one.chip_class, one.workload, one.before, one.after] = one
        except PerfError as error:
            faults.append(error.found)
    return found, tuple(faults)


def _of(record: duels.DuelRecord) -> Iterator[Confirmed]:
    commits = [(record.stacks[arm].commit or "") if arm in record.stacks else "" for arm in ("baseline", "candidate")]
    # A worker does not know the commit of the tree it was started from; the arm's own words do.
    before, after = (
        record.arms[arm].removeprefix("ref:") if record.arms[arm].startswith("ref:") else commit
        for arm, commit in zip(("baseline", "candidate"), commits, strict=True)
    )
    for duel in record.duels:
        judged = duel.judgement
        yield Confirmed(
            record.chip.chip_class, duel.workload, before, after, judged.verdict.value, judged.effect,
            judged.low, judged.high, record.date,
        )  # fmt: skip
