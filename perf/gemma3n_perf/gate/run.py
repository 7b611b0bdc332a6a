"""Evidence on this machine: the checks, the duels and the records behind ``pytest perf/ --fusion NAME``.

All fusions duel the unfused model through the same launches. Forged weights make all right programs decode the same
tokens, so there a fusion that decodes others is invalid. With weights of another origin, a near tie may fall either
way, and other tokens are a caution.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, TextIO

from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.run import DuelResult, DuelSpec, Here, duel
from gemma3n_perf.duel.run import machine as open_machine
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.fusions.parity import ENV
from gemma3n_perf.gate import record as store
from gemma3n_perf.gate.change import registered
from gemma3n_perf.gate.checks import CheckProcesses
from gemma3n_perf.gate.policy import POLICY_FILE, ClassPolicy, GatePolicy, customary_texts, read_policy
from gemma3n_perf.gate.record import Evidence, WorkloadEvidence
from gemma3n_perf.gate.session import Check, Dependencies, Duels, FusionDuel, Keep, Measure, gather
from gemma3n_perf.hardware.chip import require_known
from gemma3n_perf.hardware.stack import recorded
from gemma3n_perf.hardware.types import Chip
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.workload import load
from gemma3n_perf.workload.forge import ensure_forged
from gemma3n_perf.workload.presets import PRESETS

ANY_CLASS = GatePolicy(unfinished=True)
"""The usual rules, which require no class."""
GPU_BUDGETS = 2
"""How many times the usual budget a session has on a GPU: its launches are longer, 2 % are admitted as often."""
_MOST_CANDIDATES = 16
"""Of one duel: each holds the weights and its kernels, and each waits for all the others' blocks."""

Machine = Callable[[Path | None, TextIO], AbstractContextManager[Here]]


@dataclass(frozen=True, slots=True)
class EvidenceSpec:
    """What evidence is measured by: the gate's ``policy``, workload ids, and seconds of measuring for each of them."""

    policy: GatePolicy
    workloads: tuple[str, ...]
    each_s: float


def spec_of(
    baselines: Path, chip: Chip, workloads: tuple[str, ...] = (), budget_s: float | None = None
) -> EvidenceSpec:
    """Return what the policy of ``baselines``, or the usual one where there is none, asks of evidence on this chip.

    ``workloads`` () are the policy's; ``budget_s`` is for all of them together. Raises UsageError for the policy.
    """
    path, name = recorded(baselines, POLICY_FILE), chip.chip_class
    found = read_policy(path) if path.exists() else None
    workloads = workloads or usual(found, chip)
    policy = found or GatePolicy((name,), {name: ClassPolicy(workloads)})
    session_s = policy.judging.budget_s * (1 if chip.vendor == "cpu" else GPU_BUDGETS)
    each_s = budget_s / len(workloads) if budget_s else policy.sessions * session_s
    return EvidenceSpec(policy, workloads, each_s)


def run(
    names: tuple[str, ...],
    baselines: Path,
    err: TextIO,
    *,
    workloads: tuple[str, ...] = (),
    budget_s: float | None = None,
    sources: Mapping[str, str] | None = None,
    check: Check | None = None,
    machine: Machine = open_machine,
) -> tuple[tuple[Evidence, Path], ...]:
    """Gather evidence for every fusion in ``names`` and write it; returns the records with their paths.

    ``workloads`` () are those of the policy; ``budget_s`` is for all of them together; ``sources`` are checkpoints that
    are no presets. Records are written after every launch, in the place of older ones, which ``gate.record`` keeps.

    Raises UsageError, MachineBusyError, NotComparableError for a chip class that may hold several variants, and what
    loading and measuring raise.
    """
    with machine(baselines, err) as here, _comparable_outputs() as restore:
        require_known(here.chip)
        spec = spec_of(baselines, here.chip, workloads, budget_s)
        policy = spec.policy
        for name in dict.fromkeys(workload.partition("/")[0] for workload in spec.workloads):
            if name in PRESETS:
                ensure_forged(PRESETS[name], here.root, here.tools.note)
        attempt = cache(partial(store.attempt, baselines, here.chip.chip_class))

        def write(record: Evidence) -> Path:
            return store.write(baselines, replace(record, attempts=attempt(record.fusion, record.sources)))

        def measure(*args: Any) -> Duels:
            restore()
            return measuring(here, sources, policy)(*args)

        dependencies = Dependencies(
            chip=here.chip,
            stack=here.stack,
            sources=registered(),
            check=check or CheckProcesses(here.chip, here.root, sources or {}, here.tools.note),
            measure=measure,
            now=partial(dt.datetime.now, dt.UTC),
            note=here.tools.note,
            keep=write,
            noise=here.noise,
        )
        records = gather(
            names, spec.workloads, dependencies, budget_s=spec.each_s, sessions=policy.sessions, policy=policy
        )
        return tuple((one, write(one)) for one in records)


@contextmanager
def _comparable_outputs() -> Iterator[Callable[[], None]]:
    """Set what makes outputs comparable: CUDA's products else round float32 to 10 bits.

    That is not how decode runs, so the arms start without it: yields what restores the environment before they do.
    """
    before = {variable: os.environ[variable] for variable in ENV if variable in os.environ}

    def restore() -> None:
        for variable in ENV:
            os.environ.pop(variable, None)
        os.environ.update(before)

    os.environ.update(ENV)
    try:
        yield restore
    finally:
        restore()


def usual(policy: GatePolicy | None, chip: Chip) -> tuple[str, ...]:
    """The workloads that the policy requires of this class; elsewhere the chip's customary texts."""
    if policy is not None and chip.chip_class in policy.classes:
        return policy.workloads(chip.chip_class)
    return customary_texts(chip.vendor)


def arm(fusion: str) -> str:
    """Return a fusion, or a composition ``a+b``, as an arm in words."""
    return "+".join(["here", *(f"fusion:{part.strip()}" for part in fusion.split("+"))])


def measuring(machine: Here, sources: Mapping[str, str] | None = None, policy: GatePolicy = ANY_CLASS) -> Measure:
    """Return what measures fusions here, by a gate's policy; the caller holds the measuring lock while it does.

    Raises UsageError, and what reading a checkpoint's config raises; what goes wrong while a fusion is measured is its
    judgement.
    """

    judging = policy.judging

    def may_differ(workload: str) -> bool:
        name = workload.partition("/")[0]
        return not load.is_forged(load.config_of((sources or {}).get(name, name), machine.root))

    def measure(
        fusions: Sequence[str], workloads: Sequence[str], sessions: int, budget_s: float, keep: Keep
    ) -> dict[tuple[str, str], FusionDuel]:
        found: dict[tuple[str, str], FusionDuel] = {}

        def add(some: Sequence[str], result: DuelResult) -> None:
            for number, name in enumerate(some):
                for workload, one in result.of(number).items():
                    found[name, workload] = _duel(workload, one.state, one.judgement, sessions, budget_s, judging)

        def launched(some: Sequence[str], result: DuelResult) -> None:
            add(some, result)
            keep(dict(found))

        differing = {workload: may_differ(workload) for workload in workloads}
        for start, lenient in product(range(0, len(fusions), _MOST_CANDIDATES), sorted(set(differing.values()))):
            some = fusions[start : start + _MOST_CANDIDATES]
            alike = tuple(workload for workload in workloads if differing[workload] is lenient)
            spec = DuelSpec(
                "here", tuple(arm(name) for name in some), alike, budget_s, sessions,
                outputs_may_differ=lenient, sources=sources or {}, cooldown_s=policy.apart, policy=judging,
            )  # fmt: skip
            add(some, duel(spec, machine, launched=partial(launched, some)))
        return found

    return measure


def _duel(
    workload: str, state: ComparisonState, judged: Judgement, sessions: int, budget_s: float, judging: Policy
) -> FusionDuel:
    def alone(session: int) -> Judgement:
        """Judge one session alone; it may use what earlier ones left of the seconds that go to all of them."""
        own = [launch for launch in state.launches if launch.session == session]
        before_s = sum(launch.seconds for launch in state.launches if launch.session < session)
        until_s = budget_s * (session + 1) / sessions
        return judge(estimates(own), judging, budget_s=until_s - before_s, budget_spent=True)

    stacks = {name: side.stack for name, side in (state.sides or {}).items()}
    each = tuple(map(alone, range(sessions)))
    measured = WorkloadEvidence(workload, judged, each, budget_s, state.launches, state.spent)
    return FusionDuel(measured, stacks, state.cautions)
