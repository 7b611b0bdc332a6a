"""Whether a change of the program may enter: every class's launches judged again, by the rules of the base branch.

Opinion: a loss on one class is not made good by a win on another. Whatever a record says of itself is not read, but for
what broke off a duel.
"""

import datetime as dt
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gemma3n_perf.bench.comparison import Compared, Exact
from gemma3n_perf.bench.outcome import accept
from gemma3n_perf.bench.regression import Regression
from gemma3n_perf.duel.first_tokens import judge_first_tokens, memory_changes
from gemma3n_perf.duel.judgements import judgements
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.errors import InvalidError, MalformedRecordError
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.report import units
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import Verdict, not_measured
from gemma3n_perf.store import noise
from gemma3n_perf.store.accepted import FOLDER, Accepted

CODES = (5, 1, 4, 3, 0)
"""Exit codes, the worst first."""

_PACKAGE = re.compile(r"\+(?=[a-z0-9.-]+==)")
_VERSION = re.compile(r"[a-z0-9.-]+==[A-Za-z0-9.+!-]+")
REMEDIES = {
    Verdict.LOSS: f"undo what did it, or have a maintainer accept it in baselines/{FOLDER}/NAME.toml (docs/ci.md)",
    Verdict.INVALID: "make head decode the same tokens of the same checkpoint as its base",
    Verdict.NOT_MEASURED: "put right what it names, then run the job again",
    Verdict.INCONCLUSIVE: "run it again on a quieter machine, or raise budget in [regression] of the policy",
}


@dataclass(frozen=True, slots=True)
class ClassResult:
    """What one class says of the change: a comparison for each workload, or that the program is the ``same``.

    ``missing`` is why it says nothing; ``changes`` what differs between the programs.
    """

    chip_class: str
    required: bool
    compared: tuple[Compared, ...] = ()
    same: bool = False
    changes: tuple[str, ...] = ()
    missing: Objection | None = None

    @property
    def verdicts(self) -> set[Verdict]:
        """The verdicts of its workloads."""
        return {one.judgement.verdict for one in self.compared}


@dataclass(frozen=True, slots=True)
class RegressionRuling:
    """What all classes say of the change, and the ``reasons`` to refuse it. Without classes nothing was compared.

    A reason without a remedy of its own is one that the table shows, and has that of ``REMEDIES``.
    """

    classes: tuple[ClassResult, ...] = ()
    reasons: tuple[Objection, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0, or that of the most severe reason."""
        return min((0, *(one.verdict.exit_code for one in self.reasons)), key=CODES.index)

    @property
    def changes(self) -> tuple[str, ...]:
        """What differs between the programs, on any class."""
        return tuple(dict.fromkeys(change for one in self.classes for change in one.changes))

    @property
    def closing(self) -> str:
        """How it ended, in one line."""
        if self.reasons:
            verdicts = dict.fromkeys(one.verdict.value for one in self.reasons)
            blamed = self.changes[:2] if Verdict.LOSS.value in verdicts else ()
            changes = f" ({'; '.join(blamed)})" if blamed else ""
            return f"refused: {', '.join(verdicts)}{changes}"
        rows = [one for result in self.classes for one in result.compared]
        found = Counter(f"{one.judgement.word}{' accepted' if one.is_accepted else ''}" for one in rows)
        counted = ", ".join(f"{count} {word}" for word, count in found.items())
        same = "the same program" if any(one.same for one in self.classes) else "nothing was compared"
        return f"no regression: {counted or same}"


def require_of(record: Regression, chip_class: str, base: str, head: str) -> None:
    """Raise InvalidError for a record of another class or commit, or of arms other than the two commits."""
    duel = record.duel
    first, *packages = _PACKAGE.split(record.arm)
    for right, found in (
        (record.chip_class == chip_class, f"it is of {record.chip_class[:80]!r}"),
        (duel is None or duel.chip.chip_class == chip_class, "its duel is of another chip class"),
        ((record.base, record.head) == (base, head), f"it compares {record.base[:12]} with {(record.head or '')[:12]}"),
        (record.dirty is False, "its tree had uncommitted changes"),
        (first == f"ref:{base}" and all(map(_VERSION.fullmatch, packages)), f"its base is {record.arm[:200]!r}"),
        (duel is None or duel.arms == {"baseline": record.arm, "candidate": "here"}, "its duel is of other arms"),
        (duel is None or not (duel.aa or any(duel.planted.values())), "its duel has a planted slowdown"),
    ):
        if not right:
            raise InvalidError(
                f"a comparison that is not of this change: {found}",
                expected=f"{base[:12]} against {head[:12]} on {chip_class}",
                remedy="run the job again; if it comes back, look at who wrote it",
            )


def judged(
    record: Regression,
    policy: GatePolicy,
    accepted: Sequence[Accepted] = (),
    *,
    today: dt.date,
    floor: NoiseFloor | None = None,
) -> ClassResult:
    """Judge one class's launches again, all its workloads as one family; ``accepted`` is what is in force."""
    name = record.chip_class
    required = name in policy.compared
    if record.failure is not None or record.duel is None:
        return ClassResult(name, required, missing=record.failure)
    duel = record.duel
    launches = {one.workload: one.raw for one in duel.duels}
    states = {one.workload: ComparisonState(one.workload, one.raw, one.budget_spent) for one in duel.duels}
    found = dict(judgements(states, budget_s=duel.budget_s, policy=policy.comparing, noise=floor, today=today))
    # What broke a duel off, no launch shows.
    broken = (Verdict.INVALID, Verdict.NOT_MEASURED)
    found |= {one.workload: one.judgement for one in duel.duels if one.judgement.verdict in broken}
    found |= {
        one: not_measured("it was not among those measured") for one in policy.workloads(name) if one not in found
    }
    ttfts = judge_first_tokens(launches, policy.comparing)
    rows = []
    for workload, judgement in found.items():
        exact = record.exact.get(workload, Exact())
        causes = (*record.changes, *exact.causes, *memory_changes(launches.get(workload, ()))[0])
        one = Compared(workload, judgement, rises=exact.rises, causes=causes, ttft=ttfts.get(workload))
        rows.append(accept(one, accepted))
    return ClassResult(name, required, tuple(rows), changes=record.changes)


def rule_on(
    classes: Iterable[str],
    find: Callable[[str], Regression | Objection | None],
    commits: tuple[str, str],
    policy: GatePolicy,
    baselines: Path,
    accepted: Sequence[Accepted],
    today: dt.date,
) -> RegressionRuling:
    """Judge what ``find`` has of each class, or why it has nothing, and rule on all of it; None is the same program.

    ``commits`` are base and head. A record that cannot be read, or is of another comparison, is invalid.
    """
    results = []
    for name in classes:
        try:
            found = find(name)
            if found is None:
                results.append(ClassResult(name, name in policy.compared, same=True))
                continue
            if isinstance(found, Regression):
                require_of(found, name, *commits)
                known = noise.read(baselines, name)
                results.append(judged(found, policy, accepted, today=today, floor=known.floor if known else None))
                continue
        except (InvalidError, MalformedRecordError) as error:
            found = Objection(Verdict.INVALID, error.found, error.remedy or "", name)
        results.append(ClassResult(name, name in policy.compared, missing=found))
    return rule(results, policy)


def rule(results: Sequence[ClassResult], policy: GatePolicy) -> RegressionRuling:
    """Say whether the change may enter: no loss on any class, and an answer from each that is required."""
    reasons = tuple(reason for one in results for reason in _reasons(one, policy))
    notes = []
    by_verdict: Mapping[Verdict, list[str]] = {
        verdict: [one.chip_class for one in results if verdict in one.verdicts] for verdict in Verdict
    }
    wins, losses = by_verdict[Verdict.WIN], by_verdict[Verdict.LOSS]
    if wins and losses and wins != losses:
        notes.append(
            f"classes disagree: a win on {', '.join(wins)}, a loss on {', '.join(losses)}; a loss on any refuses"
        )
    open_ones = by_verdict[Verdict.INCONCLUSIVE]
    if open_ones and policy.regression.inconclusive == "passes":
        notes.append(f"inconclusive on {', '.join(open_ones)}: it passes, by [regression] of the policy")
    notes += [
        f"no answer of {one.chip_class}: {one.missing.found}" for one in results if one.missing and not one.required
    ]
    if results and policy.awaiting:
        notes.append(f"no machine yet, so not waited for: {', '.join(policy.awaiting)}")
    return RegressionRuling(tuple(results), reasons, tuple(notes))


def _reasons(result: ClassResult, policy: GatePolicy) -> Iterator[Objection]:
    def against(verdict: Verdict, found: str, remedy: str = "") -> Objection:
        return Objection(verdict, found, remedy, result.chip_class)

    if result.missing is not None and (result.required or result.missing.verdict is Verdict.INVALID):
        remedy = result.missing.remedy or REMEDIES[result.missing.verdict]
        yield against(result.missing.verdict, result.missing.found, remedy)
    needed = {Verdict.NOT_MEASURED} | ({Verdict.INCONCLUSIVE} if policy.regression.inconclusive == "refuses" else set())
    for one in result.compared:
        verdict, said = one.judgement.verdict, f"{one.workload}: {one.judgement.reason}"
        accepted = one.accepted
        if verdict is Verdict.INVALID or (verdict in needed and result.required):
            yield against(verdict, said, "" if verdict is Verdict.INCONCLUSIVE else REMEDIES[verdict])
        elif verdict is Verdict.LOSS and not one.is_accepted:
            more = f", more than the {units.percent(accepted.effect, 1)} of {accepted.name}.toml" if accepted else ""
            yield against(verdict, f"{said}{more}", REMEDIES[verdict] if accepted else "")
        elif one.is_alarm:
            found = f"{one.workload}: exact counts rose without a win: {'; '.join(one.rises)}"
            yield against(Verdict.LOSS, found, REMEDIES[Verdict.LOSS])
        if one.is_slower_to_start and one.ttft is not None:
            yield against(Verdict.LOSS, f"{one.workload}: TTFT: {one.ttft.reason}")
