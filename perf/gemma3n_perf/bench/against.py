"""The comparison of one session: with what, whether that is the same program, and the duel where it is not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gemma3n_perf.bench.comparator import Chosen, Comparator, choose, comparators
from gemma3n_perf.bench.comparison import SAME_PROGRAM, Exact, exact
from gemma3n_perf.decode.engines import counts_graph
from gemma3n_perf.decode.types import Graph
from gemma3n_perf.duel import graphs, programs
from gemma3n_perf.duel.arms import parse
from gemma3n_perf.duel.builder import ReadyArm, require_commit
from gemma3n_perf.duel.parts import Parts
from gemma3n_perf.duel.run import DuelResult, DuelSpec, Here, duel, job
from gemma3n_perf.duel.tools import Job
from gemma3n_perf.errors import (
    ArmUnavailableError,
    CheckpointMissingError,
    NotComparableError,
    PerfError,
    WorkerFailedError,
)
from gemma3n_perf.hardware.git import Repository
from gemma3n_perf.hardware.stack import installed_release
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from gemma3n_perf.workload.workload import WARM_TOKENS, Workload

BUDGET_S = 160.0
"""Seconds of measuring that the duel of one workload may take; it stops as soon as something is shown. That nothing
changed takes the longest to show: ``python -m studies.operating_characteristics`` says how often it is."""

RISEN_BUDGET_S = 12.0
"""The same where exact counts rose: that is an alarm already, and only a win, which shows early, can lift it."""

PLANTED_BUDGETS_S = ((0.2, 6.0, 20.0), (0.04, 25.0, 60.0))
"""The least planted slowdown, and the seconds of a duel that finds it on a CPU and on a GPU."""

SHARE = 0.7
"""The duel's share of --budget. The rest is for workloads of which the duel took no run."""

SAME = Judgement(Verdict.NO_CHANGE, SAME_PROGRAM, effect=0.0)
HERE = "here"


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What was requested. ``against`` is an arm, None for the first that can be had; ``baseline`` the stack of the
    class's committed baseline; ``measure_anyway`` duels one program with itself too."""

    workloads: tuple[str, ...]
    sources: Mapping[str, str] = field(default_factory=dict)
    against: str | None = None
    baseline: Stack | None = None
    planted: float = 0.0
    measure_anyway: bool = False
    time_budget: float | None = None

    @property
    def candidate(self) -> str:
        """The arm that is judged: this tree, with the slowdown that was planted."""
        return f"{HERE}+plant:+{100 * self.planted:.10g}%" if self.planted else HERE

    def budget_s(self, vendor: str) -> float:
        """Seconds of measuring for each workload, on a chip of ``vendor``."""
        short = ((cpu_s, gpu_s) for least, cpu_s, gpu_s in PLANTED_BUDGETS_S if self.planted >= least)
        most = next(short, (BUDGET_S, BUDGET_S))[vendor != "cpu"]
        if self.time_budget is None:
            return most
        return min(most, SHARE * self.time_budget / max(len(self.workloads), 1))


@dataclass(frozen=True, slots=True)
class Against:
    """What a session is compared with. ``changes`` is what differs, where ``is_same`` does not hold; ``counts`` says
    whether its decode graph may differ; ``checkpoints`` are digests by name."""

    chosen: Chosen
    baseline: ReadyArm
    is_same: bool = False
    changes: tuple[str, ...] = ()
    counts: bool = True
    checkpoints: Mapping[str, str] = field(default_factory=dict)

    def exact(self, ours: Graph, source: str, position: int) -> Exact:
        """Compare a decode step with this program's; nothing where it cannot be told."""
        theirs = None if self.is_same or not self.counts else graphs.count(self.baseline, source, position)
        return exact(theirs, ours) if theirs else Exact()


def exact_counts(
    arms: tuple[ReadyArm, ReadyArm], workloads: Iterable[str], sources: Mapping[str, str], machine: Here
) -> dict[str, Exact]:
    """Compare the decode steps of two arms, each counted by its own code; by workload, where both can tell."""
    found: dict[str, Exact] = {}
    for workload in filter(counts_graph, map(Workload.parse, workloads)):
        source, position = job(str(workload), sources, machine.root).source, workload.shape.prompt + WARM_TOKENS
        before, after = (graphs.count(arm, source, position) for arm in arms)
        if before is not None and after is not None:
            found[str(workload)] = exact(before, after)
    return found


def establish(request: CompareRequest, machine: Here, repo: Path | None) -> Against:
    """Find what to compare with, build it, and find out whether it is the same program.

    Raises NoBaselineError where there is nothing, and what building raises for an arm that was named.
    """
    if request.planted:
        without = Comparator(request.against or HERE, "this program without the planted slowdown")
        arms = machine.builder.build(parse(without.arm), [parse(request.candidate)], same=None)
        return Against(Chosen(without), arms[0], counts=False)
    release = installed_release()
    found = comparators(
        Repository(repo) if repo else None, machine.stack, request.baseline, release[0] if release else None,
        machine.chip.chip_class,
    )  # fmt: skip
    jobs = [job(name, request.sources, machine.root) for name in request.workloads]
    ours: list[programs.ArmProgram] = []

    def build(one: Comparator) -> tuple[programs.ArmProgram, ReadyArm]:
        arm = parse(one.arm)
        first, candidate = machine.builder.build(arm, [parse(HERE)], same=None)
        require_commit(first)
        chip_class = machine.chip.chip_class
        declared = programs.declared(first, arm.ref, repo, chip_class)
        try:
            theirs = programs.inspect(first, declared, jobs, machine.tools)
            if not ours:
                ours.append(_inspected(candidate, programs.declared(candidate, None, repo, chip_class), jobs, machine))
            programs.require_same_work(theirs, ours[0])
        except (CheckpointMissingError, WorkerFailedError, NotComparableError) as error:
            if request.against is not None:
                raise
            found = error.found.removeprefix(f"{one.arm}: ")
            raise ArmUnavailableError(f"it cannot be compared: {found}") from error
        return theirs, first

    chosen, (theirs, first) = choose(found, build, request.against)
    if programs.same_program(theirs, ours[0]):
        return Against(chosen, first, is_same=not request.measure_anyway, checkpoints=theirs.checkpoints)
    return Against(chosen, first, changes=programs.changes(theirs, ours[0]))


def _inspected(arm: ReadyArm, declared: Parts | None, jobs: Sequence[Job], machine: Here) -> programs.ArmProgram:
    try:
        return programs.inspect(arm, declared, jobs, machine.tools)
    except PerfError:  # the duel, or the session's own runs, will say what is wrong with this tree
        return programs.ArmProgram(arm, declared)


def compare(
    against: Against,
    request: CompareRequest,
    machine: Here,
    workloads: Sequence[str],
    launched: Callable[[DuelResult], None] = lambda result: None,
    *,
    risen: bool = False,
) -> DuelResult:
    """Duel this tree against what it is compared with, on ``workloads``, as one family. Raises what ``duel`` raises.

    ``risen`` says that exact counts rose.
    """
    budget_s = request.budget_s(machine.chip.vendor)
    budget_s = min(budget_s, RISEN_BUDGET_S) if risen else budget_s
    spec = DuelSpec(
        against.chosen.comparator.arm, (request.candidate,), tuple(workloads), budget_s,
        aa=None, sources=request.sources, runs=True, flexible=True,
    )  # fmt: skip
    return duel(spec, machine, launched=launched)
