"""Every night: today's main against the last release and against last night's, by duel, and what to say of a loss.

Opinion: one issue, written once and changed in place. A loss against the last release is in it every night until it is
mended or accepted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.bench import regression_report
from gemma3n_perf.bench.outcome import in_force
from gemma3n_perf.bench.regression import REGRESSIONS, Regression
from gemma3n_perf.bench.regression_rule import ClassResult, RegressionRuling, rule_on
from gemma3n_perf.ci.measure import copy
from gemma3n_perf.ci.post import ISSUE
from gemma3n_perf.gate.change import Checkout, program_changes
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.report.markdown import plain
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.accepted import Accepted, read_accepted
from gemma3n_perf.store.files import data_folder

RELEASE, LAST_NIGHT = "release", "last-night"
HISTORY = "history"
"""Of a class: duels of commits against their anchor, kept from night to night in the user's data folder."""


@dataclass(frozen=True, slots=True)
class Base:
    """What main is compared with: a name for its record, words for readers, the commit."""

    name: str
    title: str
    commit: str


def bases(repository: Repository, last: str | None) -> tuple[Base, ...]:
    """Return the last release before HEAD, and ``last``, the commit of last night's run, as far as they are there."""
    head, found = repository.commit(), []
    tag = repository.last_tag()
    if tag is not None and repository.commit(tag) == head:
        tag = repository.last_tag("HEAD^")
    release = repository.commit(tag) if tag is not None else None
    if release is not None:
        found.append(Base(RELEASE, f"the last release, {tag}", release))
    before = repository.commit(last) if last else None
    if before is not None and repository.is_ancestor(before):
        found.append(Base(LAST_NIGHT, f"last night's {before[:12]}", before))
    return tuple(found)


def measure(
    chip_class: str, last: str | None, here: Checkout, out: Path, compare: Callable[[str], Regression]
) -> tuple[Path, ...]:
    """Compare main with each base by ``compare``, but for the same program, and write the records below ``out``."""
    written = []
    for base in bases(here.repository, last):
        if program_changes(base.commit, here.repository, [chip_class]):
            path = out / "nightly" / chip_class / f"{base.name}.json"
            written.append(REGRESSIONS.write(path, compare(base.commit)))
    return tuple(written)


def bring_history(chip_class: str, baselines: Path, data: Path | None = None) -> None:
    """Lay what earlier nights kept of a class's history beside what is committed, which stays."""
    kept, there = (data or data_folder()) / HISTORY / chip_class, baselines / chip_class / HISTORY
    for path in sorted(one for one in kept.rglob("*.json*") if one.is_file()):
        target = there / path.relative_to(kept)
        # A point of an older release has no .xz; whichever is committed stays.
        if not any(one.exists() for one in (target, target.with_name(f"{target.name}.xz"), target.with_suffix(""))):
            copy(path, target)


def keep_history(chip_class: str, baselines: Path, out: Path, data: Path | None = None) -> None:
    """Keep a class's history for the next night, and put it among the records that are sent."""
    there = baselines / chip_class / HISTORY
    for folder in ((data or data_folder()) / HISTORY / chip_class, out / "baselines" / chip_class / HISTORY):
        for path in sorted(one for one in there.rglob("*") if one.is_file()):
            copy(path, folder / path.relative_to(there))


def report(
    records: Path, classes: Sequence[str], last: str | None, policy: GatePolicy, here: Checkout
) -> tuple[str, bool | None]:
    """Return the text of the night's issue, and whether anything lost; None where something was left open.

    Raises as ``read_accepted`` does.
    """
    parts, lost, left_open = [], False, False
    for base in bases(here.repository, last):
        accepted = in_force(read_accepted(here.baselines), here.repository, base.commit)
        ruling = _ruled(base, records, classes, policy, here, accepted)
        lost = lost or any(one.verdict is Verdict.LOSS for one in ruling.reasons)
        left_open = left_open or any(_left_open(one) for one in ruling.classes)
        title = f"### Against {plain(base.title)}: {plain(ruling.closing)}"
        parts += [title, *regression_report.markdown(ruling, accepted)]
    head = here.repository.commit() or "unknown"
    calm = "No loss tonight, but not all is known" if left_open else "No loss tonight"
    first = "Decode is slower" if lost else calm
    text = "\n\n".join([f"{ISSUE}\n{first}, at {head[:12]} on {here.today}.", *parts]) + "\n"
    return text, lost or (None if left_open else False)


def _left_open(one: ClassResult) -> bool:
    """Whether a class says less than that nothing lost."""
    known = (Verdict.WIN, Verdict.NO_CHANGE)
    rows = (row for row in one.compared if not row.is_accepted)
    return not one.same and (not one.compared or any(row.judgement.verdict not in known for row in rows))


def _ruled(
    base: Base, records: Path, classes: Sequence[str], policy: GatePolicy, here: Checkout, accepted: Sequence[Accepted]
) -> RegressionRuling:
    changed = program_changes(base.commit, here.repository, classes)

    def find(name: str) -> Regression | Objection | None:
        if name not in changed:
            return None
        found = REGRESSIONS.find(records / "nightly" / name / f"{base.name}.json")
        lacking = Objection(Verdict.NOT_MEASURED, "its machine left no record tonight", "look at the runner", name)
        return found or lacking

    commits = base.commit, here.repository.commit() or ""
    return rule_on(classes, find, commits, policy, here.baselines, accepted, here.today)
