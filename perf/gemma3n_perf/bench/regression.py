"""Base against head on one machine: the duel of a change of the program, its causes, and the record of both.

Opinion: the base is rebuilt with the packages that its own lock file names, or a slower package would be compared with
itself. Why a class has no answer is recorded as well, for the author of the change to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from gemma3n_perf.bench.against import HERE, CompareRequest, establish, exact_counts
from gemma3n_perf.bench.comparator import base_arm
from gemma3n_perf.bench.comparison import Exact
from gemma3n_perf.duel import program
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.record import DUELS, DuelRecord, compact, unfolded
from gemma3n_perf.duel.run import DuelSpec, Here, duel, record_of
from gemma3n_perf.errors import (
    ArmUnavailableError,
    CheckpointMissingError,
    NotComparableError,
    PerfError,
    UsageError,
    WorkerFailedError,
)
from gemma3n_perf.gate.facts import Objection
from gemma3n_perf.gate.policy import GatePolicy
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.stats.verdicts import Verdict
from gemma3n_perf.store.codec import Codec, Flaw
from gemma3n_perf.workload.workload import defaults

SCHEMA = 1
_OF_THE_ARMS = (ArmUnavailableError, CheckpointMissingError, NotComparableError, UsageError, WorkerFailedError)
"""What says something of base or head. Anything else is the machine's, and no answer."""


@dataclass(frozen=True, slots=True)
class Regression:
    """One class's comparison of ``base`` with ``head``, two commits.

    ``arm``      the base in words, with the packages of its lock
    ``changes``  what differs between the programs, in short sentences
    ``exact``    by workload
    ``duel``     the duel, None without one, and then ``failure`` says why
    """

    schema: int
    chip_class: str
    base: str
    head: str | None
    dirty: bool | None
    arm: str
    changes: tuple[str, ...] = ()
    exact: dict[str, Exact] = field(default_factory=dict)
    failure: Objection | None = None
    duel: DuelRecord | None = None


def workloads_of(policy: GatePolicy, chip_class: str, vendor: str) -> tuple[str, ...]:
    """Return the workloads that a change is compared on: those of the class in the policy, and the chip's customary."""
    return tuple(dict.fromkeys((*policy.workloads(chip_class), *map(str, defaults(vendor)))))


def measure(
    base: str, workloads: Sequence[str], policy: GatePolicy, machine: Here, repository: Repository
) -> Regression:
    """Compare the commit ``base`` with this tree on ``workloads``, one family. The caller holds the measuring lock.

    Raises what says nothing of the two programs: a machine that is not fit or busy, a disk that is full.
    """
    chip_class = machine.chip.chip_class
    record = Regression(SCHEMA, chip_class, base, machine.stack.commit, machine.stack.dirty, f"ref:{base}")
    try:
        record = replace(record, arm=base_arm(repository, base, chip_class, program.revision(repository)))
        # Only commits that declare different programs are sent here.
        request = CompareRequest(tuple(workloads), against=record.arm, measure_anyway=True)
        against = establish(request, machine, repository.root)
        arms = machine.builder.build(parse(record.arm), [parse(HERE)], same=None)
        exact = exact_counts((arms[0], arms[1]), workloads, {}, machine)
        record = replace(record, changes=against.changes, exact=exact)
        spec = DuelSpec(
            record.arm, (HERE,), tuple(workloads), policy.regression.budget, aa=None, policy=policy.comparing
        )
        return replace(record, duel=record_of(duel(spec, machine), machine.chip))
    except _OF_THE_ARMS as error:
        return replace(record, failure=_failure(error))


def _failure(error: PerfError) -> Objection:
    said = f"{error.found} (expected: {error.expected})" if error.expected else error.found
    return Objection(Verdict.NOT_MEASURED, said, error.remedy or "")


def _flaws(record: Regression) -> list[Flaw]:
    if (record.failure is None) is (record.duel is None):
        return [Flaw("it must have a duel or a failure", "one of them")]
    return list(DUELS.flaws(record.duel)) if record.duel else []


def _lay_out(record: Regression) -> bytes:
    tree = msgspec.to_builtins(replace(record, duel=None))
    return msgspec.json.encode(tree | {"duel": compact(record.duel) if record.duel else None})


REGRESSIONS = Codec(
    Regression, SCHEMA, "what gemma3n-perf ci measure writes", "measure again: run the job again", flaws=_flaws,
    lay_out=_lay_out, renamed=DUELS.renamed,
    unfold=lambda tree: unfolded(tree.get("duel") if isinstance(tree, dict) else None),
)  # fmt: skip
