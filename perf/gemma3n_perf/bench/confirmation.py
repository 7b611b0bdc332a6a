"""Confirming a suspicion: today's code against the baseline's own stack and commit, rebuilt beside it, in a duel.

Opinion: the screen compares across days and may suspect; only a duel may accuse.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.duel import run as dueling
from gemma3n_perf.duel.report import interval
from gemma3n_perf.errors import ArmUnavailableError, PerfError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.screening import suspects
from gemma3n_perf.stats.verdicts import Judgement, Verdict, not_measured

BUDGET_S = 60.0
OPEN_BUDGET_S = 20.0
"""Seconds of measuring for what the screen accused, and for what it only left open: a large loss shows in that time."""

LARGEST_MARGIN = 0.05
UNCONFIRMED = "a suspicion of the screen, not put to a duel: --no-confirm was given"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The duels of all suspects: a judgement each, and the arm that stood for the baseline.

    ``accused`` says that the screen called them losses, and did not only leave them open.
    """

    against: str
    judgements: Mapping[str, Judgement] = field(default_factory=dict)
    accused: bool = True

    def note(self, workload: str) -> str:
        """Say what became of a suspicion, in one line."""
        found = self.judgements[workload]
        seen = f"{interval(found)} against {self.against}, {found.launches} launches"
        refuted = "not confirmed: a duel says" if self.accused else "a duel says"
        match found.verdict:
            case Verdict.LOSS:
                return f"confirmed by a duel: {seen}"
            case Verdict.NOT_MEASURED | Verdict.INVALID:
                return f"not confirmed, for the duel gave no answer: {found.verdict}: {found.reason}"
            case Verdict.NO_CHANGE:
                return f"{refuted} no change of {100 * (found.margin or 0.0):.1f} % or more, {seen}"
            case _:
                return f"{refuted} {found.verdict}, {seen}"

    def applied(self, compared: Compared) -> Compared:
        """Give a suspect the verdict of its duel; the change shown beside it stays the screen's."""
        name = compared.measurement.workload
        if name not in self.judgements:
            return compared
        found = self.judgements[name]
        judgement = replace(compared.judgement, verdict=found.verdict, reason=self.note(name))
        return replace(compared, judgement=judgement, cautions=(*compared.cautions, *found.cautions))


def baseline_arm(then: Stack, now: Stack) -> str:
    """Return the arm that rebuilds the baseline's stack here. Raises ArmUnavailableError where nothing can."""
    if then.commit is None or then.dirty is not False:
        raise ArmUnavailableError(
            "the baseline was measured on uncommitted changes, which cannot be rebuilt",
            expected="a baseline of a commit",
            remedy="record a baseline on a clean commit: gemma3n-perf baseline save",
        )
    parts = [f"ref:{then.commit}"]
    if then.mlx != now.mlx:
        parts.append(f"mlx=={then.mlx}")
    if then.mlx_vlm is not None and then.mlx_vlm != now.mlx_vlm:
        parts.append(f"mlx-vlm=={then.mlx_vlm}")
    parts += [f"env:{name}={value}" for name, value in then.knobs.items() if now.knobs.get(name) != value]
    unset = sorted(now.knobs.keys() - then.knobs.keys())
    if unset:
        raise ArmUnavailableError(
            f"{', '.join(unset)} is set here and was not for the baseline",
            expected="the baseline's knobs, or others that can be set beside them",
            remedy=f"unset {' '.join(unset)} and run again, or duel the knob itself: here against here+env:NAME=VALUE",
        )
    return "+".join(parts)


def confirm(
    workloads: Sequence[str],
    then: Stack,
    machine: dueling.Here,
    *,
    planted: float = 0.0,
    budget_s: float = BUDGET_S,
    sources: Mapping[str, str] | None = None,
    policy: Policy | None = None,
) -> Confirmation:
    """Duel ``here``, with the session's planted slowdown, against the stack of a baseline, over suspected workloads.

    Never raises for what makes a duel impossible: its judgements are then not-measured, with the reason. The caller
    holds the measuring lock.
    """
    candidate = f"here+plant:+{100 * planted:.10g}%" if planted else "here"
    against = f"ref:{then.commit or 'unknown'}"
    try:
        against = baseline_arm(then, machine.stack)
        asked = dueling.Asked(
            against, candidate, tuple(workloads), budget_s, aa=None, sources=sources or {}, policy=policy or Policy()
        )
        return Confirmation(_short(against), dueling.duel(asked, machine).judgements)
    except PerfError as error:
        return impossible(workloads, error, _short(against))


def impossible(workloads: Sequence[str], error: PerfError, against: str = "the baseline") -> Confirmation:
    """Return what is left to say where no duel can take place: not-measured, with the reason."""
    reason = f"{error.found}; {error.remedy}" if error.remedy else error.found
    return Confirmation(against, dict.fromkeys(workloads, not_measured(reason)))


@dataclass(frozen=True, slots=True)
class ScreenOutcome:
    """A comparison after its suspicions were looked into. ``notes`` are by workload.

    ``unanswered`` says that one of them could be neither proved nor cleared.
    """

    compared: tuple[Compared, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    unanswered: bool = False


def look_into(
    compared: tuple[Compared, ...],
    then: Stack | None,
    open_machine: Callable[[], AbstractContextManager[dueling.Here]],
    *,
    enabled: bool = True,
    planted: float = 0.0,
    sources: Mapping[str, str] | None = None,
) -> ScreenOutcome:
    """Let a duel decide every loss of the screen, and the likeliest of what it left open too wide.

    One unsettled workload a session bounds the time: where one slowed, others did, and the worst shows it best. With
    ``enabled`` False, only say that no duel decided.
    """
    policy = Policy()
    names = [one.measurement.workload for one in compared if one.judgement.verdict is Verdict.LOSS]
    losses = bool(names)
    if not losses and enabled:
        names = _likeliest(compared, policy)
    if not names or then is None:
        return ScreenOutcome(compared)
    if not enabled:
        return ScreenOutcome(compared, dict.fromkeys(names, UNCONFIRMED))
    seen = [one.judgement.effect or 0.0 for one in compared if one.measurement.workload in names]
    # A suspicion of 15 % is refuted by showing that nothing near it happened; that takes seconds, not minutes.
    margin = max(policy.margin, -max(seen) / 3) if losses else LARGEST_MARGIN
    policy = replace(policy, margin=min(LARGEST_MARGIN, margin), suspicious=True)
    try:
        with open_machine() as machine:
            budget_s = BUDGET_S if losses else OPEN_BUDGET_S
            found = confirm(names, then, machine, planted=planted, budget_s=budget_s, sources=sources, policy=policy)
    except PerfError as error:
        found = impossible(names, error)
    found = replace(found, accused=losses)
    unanswered = any(found.judgements[name].verdict is Verdict.NOT_MEASURED for name in names)
    notes = {name: found.note(name) for name in names}
    if unanswered and not losses:
        return ScreenOutcome(compared, notes)  # the screen did not accuse, so its own verdict stands
    return ScreenOutcome(tuple(found.applied(one) for one in compared), notes, unanswered)


def _likeliest(compared: tuple[Compared, ...], policy: Policy) -> list[str]:
    suspected = {one.measurement.workload: suspects(one.judgement, policy) for one in compared}
    known = {name: z for name, z in suspected.items() if z is not None}
    return [min(known, key=lambda name: known[name])] if known else []


def _short(arm: str) -> str:
    head, *rest = arm.split("+")
    return "+".join([head[:16] if head.startswith("ref:") else head, *rest])
