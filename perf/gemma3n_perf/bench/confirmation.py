"""Confirming a suspicion: today's code against the baseline's own stack and commit, rebuilt beside it, in a duel.

The screen compares across days and may suspect; only a duel may accuse.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.duel import run as duels
from gemma3n_perf.duel.report import interval
from gemma3n_perf.errors import ArmUnavailableError, PerfError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.screen import suspects
from gemma3n_perf.stats.verdicts import Judgement, Verdict, not_measured

BUDGET_S = 60.0
OPEN_BUDGET_S = 20.0
"""Seconds of measuring for what the screen accused, and for what it only left open: a large loss shows in that time."""

LARGEST_MARGIN = 0.05
UNCONFIRMED = "a suspicion of the screen, not put to a duel: --no-confirm was given"


@dataclass(frozen=True, slots=True)
class ScreenOutcome:
    """A comparison after its suspicions were put to a duel. ``notes`` are by workload.

    ``unresolved`` says that one of them could be neither proved nor cleared.
    """

    compared: tuple[Compared, ...]
    notes: Mapping[str, str] = field(default_factory=dict)
    unresolved: bool = False


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


def settle(
    compared: tuple[Compared, ...],
    then: Stack,
    open_machine: Callable[[], AbstractContextManager[duels.Here]],
    *,
    enabled: bool = True,
    planted: float = 0.0,
    sources: Mapping[str, str] | None = None,
) -> ScreenOutcome:
    """Let a duel decide every loss of the screen, and the likeliest of what it left open too wide.

    The duel is of ``here``, with the session's ``planted`` slowdown, against the stack of the baseline, ``then``. One
    unsettled workload a session bounds the time: where one slowed, others did, and the worst shows it best. With
    ``enabled`` False, only say that no duel decided. What makes a duel impossible is a judgement, and not raised.
    """
    losses = [one.measurement.workload for one in compared if one.judgement.verdict is Verdict.LOSS]
    if not enabled:
        return ScreenOutcome(compared, dict.fromkeys(losses, UNCONFIRMED))
    policy = Policy()
    names = losses or _likeliest(compared, policy)
    if not names:
        return ScreenOutcome(compared)
    margin = LARGEST_MARGIN
    if losses:
        # A suspicion of 15 % is refuted by showing that nothing near it happened; that takes seconds, not minutes.
        slightest = max(one.judgement.effect or 0.0 for one in compared if one.measurement.workload in losses)
        margin = min(LARGEST_MARGIN, max(policy.margin, -slightest / 3))
    against = ""
    try:
        with open_machine() as machine:
            against = baseline_arm(then, machine.stack)
            spec = duels.DuelSpec(
                against,
                (f"here+plant:+{100 * planted:.10g}%" if planted else "here",),
                tuple(names),
                BUDGET_S if losses else OPEN_BUDGET_S,
                aa=None,
                sources=sources or {},
                policy=replace(policy, margin=margin, suspicious=True),
            )
            judgements = duels.duel(spec, machine).judgements
    except PerfError as error:
        reason = f"{error.found}; {error.remedy}" if error.remedy else error.found
        judgements = dict.fromkeys(names, not_measured(reason))
    notes = {name: _note(judgements[name], _short(against), accused=bool(losses)) for name in names}
    unresolved = any(judgements[name].verdict is Verdict.NOT_MEASURED for name in names)
    if unresolved and not losses:
        return ScreenOutcome(compared, notes)  # the screen did not accuse, so its own verdict stands
    return ScreenOutcome(tuple(_settled(one, judgements, notes) for one in compared), notes, unresolved)


def _note(found: Judgement, against: str, *, accused: bool) -> str:
    """What became of a suspicion, in one line; ``accused``: the screen had called it a loss."""
    seen = f"{interval(found)} against {against}, {found.launches} launches"
    refuted = "not confirmed: a duel says" if accused else "a duel says"
    match found.verdict:
        case Verdict.LOSS:
            return f"confirmed by a duel: {seen}"
        case Verdict.NOT_MEASURED | Verdict.INVALID:
            return f"not confirmed, for the duel gave no answer: {found.verdict}: {found.reason}"
        case Verdict.NO_CHANGE:
            return f"{refuted} no change of {100 * (found.margin or 0.0):.1f} % or more, {seen}"
        case _:
            return f"{refuted} {found.verdict}, {seen}"


def _settled(compared: Compared, judgements: Mapping[str, Judgement], notes: Mapping[str, str]) -> Compared:
    """Give a suspect the verdict of its duel; the change shown beside it stays the screen's."""
    name = compared.measurement.workload
    if name not in judgements:
        return compared
    found = judgements[name]
    judgement = replace(compared.judgement, verdict=found.verdict, reason=notes[name])
    return replace(compared, judgement=judgement, cautions=(*compared.cautions, *found.cautions))


def _likeliest(compared: Sequence[Compared], policy: Policy) -> list[str]:
    suspected = {one.measurement.workload: suspects(one.judgement, policy) for one in compared}
    known = {name: z for name, z in suspected.items() if z is not None}
    return [min(known, key=lambda name: known[name])] if known else []


def _short(arm: str) -> str:
    baseline, *changes = arm.split("+")
    return "+".join([baseline[:16] if baseline.startswith("ref:") else baseline, *changes])
