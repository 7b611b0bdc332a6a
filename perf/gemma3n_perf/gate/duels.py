"""Duels of fusions: all of them against the unfused model, through the same launches. The adapter under evidence.

Forged weights make all right programs decode the same tokens, so there a fusion that decodes others is invalid. With
weights of another origin, a near tie may fall either way, and other tokens are a caution.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.run import DuelResult, DuelSpec, Here, duel
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.gate.record import WorkloadEvidence
from gemma3n_perf.gate.session import FusionDuel, Keep, Measure
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement
from gemma3n_perf.workload import load

_MOST_CANDIDATES = 16
"""Of one duel: each holds the weights and its kernels, and each waits for all the others' blocks."""


def arm(fusion: str) -> str:
    """Return a fusion, or a composition ``a+b``, as an arm in words."""
    return "+".join(["here", *(f"fusion:{part.strip()}" for part in fusion.split("+"))])


def measuring(machine: Here, sources: Mapping[str, str] | None = None, *, cooldown_s: float = 10.0) -> Measure:
    """Return what measures fusions here; the caller holds the measuring lock while it does.

    Raises UsageError, and what reading a checkpoint's config raises; what goes wrong while a fusion is measured is its
    judgement.
    """

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
                    found[name, workload] = _duel(workload, one.state, one.judgement, sessions, budget_s)

        def launched(some: Sequence[str], result: DuelResult) -> None:
            add(some, result)
            keep(dict(found))

        differing = {workload: may_differ(workload) for workload in workloads}
        for start, lenient in product(range(0, len(fusions), _MOST_CANDIDATES), sorted(set(differing.values()))):
            some = fusions[start : start + _MOST_CANDIDATES]
            alike = tuple(workload for workload in workloads if differing[workload] is lenient)
            spec = DuelSpec(
                "here", tuple(arm(name) for name in some), alike, budget_s, sessions,
                outputs_may_differ=lenient, sources=sources or {}, cooldown_s=cooldown_s,
            )  # fmt: skip
            add(some, duel(spec, machine, launched=partial(launched, some)))
        return found

    return measure


def _duel(workload: str, state: ComparisonState, judged: Judgement, sessions: int, budget_s: float) -> FusionDuel:
    each = tuple(_of(session, state.launches, budget_s * (session + 1) / sessions) for session in range(sessions))
    stacks = {name: side.stack for name, side in (state.sides or {}).items()}
    measured = WorkloadEvidence(workload, judged, each, budget_s, state.launches, state.spent)
    return FusionDuel(measured, stacks, state.cautions)


def _of(session: int, launches: Sequence[Launch], until_s: float) -> Judgement:
    """Judge one session alone; it may use what earlier ones left of the seconds that go to all of them."""
    own = [launch for launch in launches if launch.session == session]
    before_s = sum(launch.seconds for launch in launches if launch.session < session)
    return judge(estimates(own), Policy(), budget_s=until_s - before_s, budget_spent=True)
