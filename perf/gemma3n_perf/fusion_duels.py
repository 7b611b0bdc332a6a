"""Duels of fusions: all of them against the unfused model, through the same launches. The adapter under evidence."""

from collections.abc import Callable, Mapping, Sequence

from gemma3n_perf import dueling
from gemma3n_perf.evidence_session import FusionDuel
from gemma3n_perf.measure.duel import Fought
from gemma3n_perf.measure.launch import Launch
from gemma3n_perf.verdict.judge import judge
from gemma3n_perf.verdict.policy import Policy
from gemma3n_perf.verdict.types import Judgement

_SHARES_ROOM = 16
"""Candidates to one field: each holds a KV cache and its kernels, and each waits for all the others' blocks."""


def arm(fusion: str) -> str:
    """Return a fusion, or a composition ``a+b``, as an arm in words."""
    return "+".join(["here", *(f"fusion:{part.strip()}" for part in fusion.split("+"))])


def measuring(
    machine: dueling.Here, sources: Mapping[str, str] | None = None, *, rest_s: float = 10.0
) -> Callable[[Sequence[str], Sequence[str], int, float], dict[tuple[str, str], FusionDuel]]:
    """Return what measures fusions here; the caller holds the measuring lock while it does.

    It takes fusions, workloads, sessions and seconds for each duel, and returns duels by fusion and workload. Raises
    UsageError; what goes wrong while a fusion is measured is its judgement.
    """

    def measure(
        fusions: Sequence[str], workloads: Sequence[str], sessions: int, budget_s: float
    ) -> dict[tuple[str, str], FusionDuel]:
        found: dict[tuple[str, str], FusionDuel] = {}
        for start in range(0, len(fusions), _SHARES_ROOM):
            some = fusions[start : start + _SHARES_ROOM]
            asked = dueling.Field(
                "here", tuple(arm(name) for name in some), tuple(workloads), budget_s, sessions,
                tokens_may_differ=True, sources=sources or {}, rest_s=rest_s,
            )  # fmt: skip
            answers = dueling.contested(asked, machine)
            for (workload, candidate), (fought, judged) in answers.items():
                name = some[int(candidate.partition(":")[0])]
                found[name, workload] = _duel(fought, judged, sessions, budget_s)
        return found

    return measure


def _duel(fought: Fought, judged: Judgement, sessions: int, budget_s: float) -> FusionDuel:
    each = tuple(_of(session, fought.launches, budget_s / sessions) for session in range(sessions))
    stacks = {name: side.stack for name, side in (fought.sides or {}).items()}
    return FusionDuel(judged, each, fought.launches, fought.spent, stacks, fought.notes)


def _of(session: int, launches: Sequence[Launch], budget_s: float) -> Judgement:
    own = [launch for launch in launches if launch.session == session]
    return judge(dueling.estimates(own), Policy(), budget_s=budget_s, budget_spent=True)
