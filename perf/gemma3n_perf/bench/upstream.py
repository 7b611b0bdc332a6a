"""Two revisions of a package that decodes, on one machine: the comparison that its own repository gates on.

Opinion: this suite, and every other package, is the same on both sides, so that whatever differs is upstream's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from gemma3n_perf.bench.against import SAME, exact_counts
from gemma3n_perf.bench.comparison import Compared, Exact
from gemma3n_perf.bench.regression_rule import ClassResult, RegressionRuling, rule
from gemma3n_perf.duel import programs
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import ReadyArm, require_commit
from gemma3n_perf.duel.run import DuelSpec, Here, duel, job
from gemma3n_perf.gate.policy import GatePolicy, RegressionPolicy
from gemma3n_perf.stats.verdicts import Caution, Verdict

_POLICY = GatePolicy(regression=RegressionPolicy(inconclusive="refuses"), unfinished=True)
_REMEDIES = {
    Verdict.LOSS: "undo what did it; the cause says what differs",
    Verdict.INVALID: "make head decode the same tokens as base, or say --outputs-may-differ if they should differ",
    Verdict.NOT_MEASURED: "put right what it names, then run it again",
    Verdict.INCONCLUSIVE: "run it again on a quieter machine, or with a larger --budget",
}


@dataclass(frozen=True, slots=True)
class UpstreamResult:
    """What head did to speed: the ``ruling``, and ``cautions`` of the two arms."""

    ruling: RegressionRuling
    cautions: tuple[Caution, ...] = ()
    rows: Mapping[str, Compared] = field(default_factory=dict)


def compare(spec: DuelSpec, machine: Here) -> UpstreamResult:
    """Compare the two arms of ``spec``. The caller holds the measuring lock.

    Raises UsageError for a baseline that belongs to no commit, what building arms raises, and WorkerFailedError or
    NotComparableError for a revision that cannot decode, or not the same work.
    """
    first, second = machine.builder.build(parse(spec.baseline), [parse(spec.candidates[0])], same=None)
    require_commit(first)
    changes = () if first.identity == second.identity else _changes(first, second, spec, machine)
    if changes is None or first.identity == second.identity:
        compared = [Compared(name, SAME) for name in spec.workloads]
    else:
        compared = _duelled(first, second, changes, spec, machine)
    result = ClassResult(machine.chip.chip_class, True, tuple(compared), changes=changes or ())
    ruling = rule([result], _POLICY)
    reasons = tuple(replace(one, remedy=_REMEDIES[one.verdict]) for one in ruling.reasons)
    judged = [caution for one in compared for caution in one.judgement.cautions]
    cautions = tuple(dict.fromkeys((*first.cautions, *second.cautions, *judged)))
    return UpstreamResult(replace(ruling, reasons=reasons), cautions, {one.workload: one for one in compared})


def _changes(first: ReadyArm, second: ReadyArm, spec: DuelSpec, machine: Here) -> tuple[str, ...] | None:
    """What differs between the programs that the two arms load; None where nothing does."""
    jobs = [job(name, spec.sources, machine.root) for name in spec.workloads]
    # Both run this very suite, so nothing that a checkout declares differs.
    before, after = (programs.inspect(one, {}, jobs, machine.tools) for one in (first, second))
    programs.require_same_work(before, after)
    return None if programs.same_program(before, after) else programs.changes(before, after)


def _duelled(
    first: ReadyArm, second: ReadyArm, changes: Sequence[str], spec: DuelSpec, machine: Here
) -> list[Compared]:
    counted = exact_counts((first, second), spec.workloads, spec.sources, machine)
    result, found = duel(spec, machine), []
    for name, judgement in result.judgements.items():
        exact = counted.get(name, Exact())
        causes = (*changes, *exact.causes)
        found.append(Compared(name, judgement, rises=exact.rises, causes=causes, ttft=result.ttfts.get(name)))
    return found
