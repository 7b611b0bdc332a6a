"""Duels of fusions: all of them against the unfused model, through the same launches. The adapter under evidence."""

from collections.abc import Mapping, Sequence
from functools import partial

from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.judgements import estimates
from gemma3n_perf.duel.launch import Launch
from gemma3n_perf.duel.scheduler import ComparisonState
from gemma3n_perf.gate.session import Duels, FusionDuel, Keep, Measure
from gemma3n_perf.stats.judge import judge
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement

_SHARES_ROOM = 16
"""Candidates to one field: each holds a KV cache and its kernels, and each waits for all the others' blocks."""


def arm(fusion: str) -> str:
    """Return a fusion, or a composition ``a+b``, as an arm in words."""
    return "+".join(["here", *(f"fusion:{part.strip()}" for part in fusion.split("+"))])


def measuring(machine: dueling.Here, sources: Mapping[str, str] | None = None, *, cooldown_s: float = 10.0) -> Measure:
    """Return what measures fusions here; the caller holds the measuring lock while it does.

    Raises UsageError; what goes wrong while a fusion is measured is its judgement.
    """

    def together(
        some: Sequence[str], workloads: Sequence[str], sessions: int, budget_s: float, keep: Keep
    ) -> dict[tuple[str, str], FusionDuel]:
        asked = dueling.Field(
            "here", tuple(arm(name) for name in some), tuple(workloads), budget_s, sessions,
            tokens_may_differ=True, sources=sources or {}, cooldown_s=cooldown_s,
        )  # fmt: skip

        def duels(answers: dueling.Comparisons) -> dict[tuple[str, str], FusionDuel]:
            return {
                (some[int(candidate.partition(":")[0])], workload): _duel(fought, judged, sessions, budget_s)
                for (workload, candidate), (fought, judged) in answers.items()
            }

        return duels(dueling.contested(asked, machine, launched=lambda answers: keep(duels(answers))))

    def measure(
        fusions: Sequence[str], workloads: Sequence[str], sessions: int, budget_s: float, keep: Keep
    ) -> dict[tuple[str, str], FusionDuel]:
        found: dict[tuple[str, str], FusionDuel] = {}
        for start in range(0, len(fusions), _SHARES_ROOM):
            some = fusions[start : start + _SHARES_ROOM]
            found |= together(some, workloads, sessions, budget_s, partial(_kept, keep, dict(found)))
        return found

    return measure


def _kept(keep: Keep, earlier: Duels, now: Duels) -> None:
    keep({**earlier, **now})


def _duel(fought: ComparisonState, judged: Judgement, sessions: int, budget_s: float) -> FusionDuel:
    each = tuple(_of(session, fought.launches, budget_s * (session + 1) / sessions) for session in range(sessions))
    stacks = {name: side.stack for name, side in (fought.sides or {}).items()}
    return FusionDuel(judged, each, fought.launches, fought.spent, stacks, fought.notes)


def _of(session: int, launches: Sequence[Launch], until_s: float) -> Judgement:
    """Judge one session alone; it may use what earlier ones left of the seconds that go to all of them."""
    own = [launch for launch in launches if launch.session == session]
    before_s = sum(launch.seconds for launch in launches if launch.session < session)
    return judge(estimates(own), Policy(), budget_s=until_s - before_s, budget_spent=True)
