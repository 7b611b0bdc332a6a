"""Today's session against a stored baseline: what may be compared, what differs exactly, and the screen's verdict.

Opinion: exact figures come before any timing. A difference that no statistics can excuse (tokens, checkpoint bytes,
shape) is invalid; one that explains a timing (graph, stack) is said first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gemma3n_perf.decode.graph import difference
from gemma3n_perf.decode.types import Graph, Measurement
from gemma3n_perf.errors import CountsChangedError, NotComparableError
from gemma3n_perf.hardware.types import Chip, Stack
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.screen import Spread, judge_screen, pooled_spread
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict, invalid
from gemma3n_perf.store.files import SHORT_COMMIT
from gemma3n_perf.store.types import Baseline

PEAK_TOLERANCE = 0.10
"""Peak memory depends on how far the host runs ahead: sessions of one commit differed by up to 7.4 % (baselines/)."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One workload's comparison. ``tripwires`` are exact differences, in words; ``cautions`` stand beside them."""

    measurement: Measurement
    judgement: Judgement
    label: str = ""
    tripwires: tuple[str, ...] = ()
    cautions: tuple[Caution, ...] = field(default_factory=tuple)


def same_class(chip: Chip, baseline: Baseline) -> None:
    """Raise NotComparableError where the baseline is another chip class's."""
    if chip.chip_class != baseline.chip.chip_class:
        raise NotComparableError(
            f"this machine is {chip.chip_class}, the baseline is of {baseline.chip.chip_class}",
            expected="one chip class: absolute numbers of two chips say nothing about a change",
            remedy="compare on the baseline's chip, or record a baseline here: gemma3n-perf baseline save",
        )


def same_mlx(one: Stack, other: Stack) -> bool:
    """Whether two stacks should give the same tokens and counts: one mlx, mlx-vlm and backend."""
    return (one.mlx, one.mlx_vlm, one.backend) == (other.mlx, other.mlx_vlm, other.backend)


def compare(
    measurements: Sequence[Measurement], baseline: Baseline | None, stack: Stack, policy: Policy
) -> tuple[Compared, ...]:
    """Compare every workload, as one family by Holm's procedure, in the order given."""
    pairs = {one.workload: (one, baseline.sessions_of(one.workload) if baseline else ()) for one in measurements}
    unfit = {name: fault for name, (one, stored) in pairs.items() if (fault := _not_comparable(one, stored))}
    # What has no stored session claims nothing, so it takes no share of the family's error.
    judged = [name for name, (_, stored) in pairs.items() if stored and name not in unfit]
    spread = _spread(baseline)

    def one_workload(name: str, alpha: float) -> Judgement:
        measurement, stored = pairs[name]
        return judge_screen(
            measurement.session_tpot_s,
            [session.session_tpot_s for session in stored],
            replace(policy, alpha=alpha),
            spread=spread,
        )

    judgements = dict(step_down(judged, policy.alpha, one_workload))
    judgements |= {name: invalid(fault) for name, fault in unfit.items()}
    judgements |= {name: one_workload(name, policy.alpha) for name in pairs if name not in judgements}
    return tuple(
        _with_exact(one, stored, _claim_no_win(judgements[name]), baseline, stack)
        for name, (one, stored) in pairs.items()
    )


def _claim_no_win(judgement: Judgement) -> Judgement:
    # The screen compares across days and processes: it may suspect, and only a duel may claim.
    if judgement.verdict is not Verdict.WIN:
        return judgement
    return replace(
        judgement,
        verdict=Verdict.INCONCLUSIVE,
        reason=f"{judgement.reason}: it looks faster, and only a duel can show a win",
    )


def _spread(baseline: Baseline | None) -> Spread | None:
    if baseline is None:
        return None
    groups = [[one.session_tpot_s for one in baseline.sessions_of(name)] for name in baseline.workloads]
    return pooled_spread(groups)


def _not_comparable(today: Measurement, stored: Sequence[Measurement]) -> str | None:
    for then in stored[-1:]:
        for what, a, b in (
            ("checkpoint bytes", today.checkpoint_digest, then.checkpoint_digest),
            ("prompt tokens", today.prompt_tokens, then.prompt_tokens),
            ("generated tokens", today.generated_tokens, then.generated_tokens),
            ("engine", today.engine, then.engine),
            ("soft tokens", today.soft_tokens, then.soft_tokens),
        ):
            if a != b:
                return f"{what} differ: {a} here, {b} in the baseline"
    return None


def _with_exact(
    today: Measurement, stored: Sequence[Measurement], judgement: Judgement, baseline: Baseline | None, stack: Stack
) -> Compared:
    if not stored or baseline is None:
        return Compared(today, judgement, cautions=judgement.cautions)
    then = stored[-1]
    label = baseline.describe(today.workload)
    same = same_mlx(stack, baseline.stack)
    if same and today.token_digest != then.token_digest and judgement.verdict is not Verdict.INVALID:
        judgement = invalid("the greedy tokens differ from the baseline's on the same mlx and mlx-vlm")
    cautions = list(judgement.cautions)
    if not same:
        cautions.append(
            Caution(
                "stack-differs",
                f"the baseline was measured with mlx {baseline.stack.mlx} and mlx-vlm {baseline.stack.mlx_vlm}, "
                f"this session with mlx {stack.mlx} and mlx-vlm {stack.mlx_vlm}",
                "a change may come from either; a duel of the two versions tells",
            )
        )
    return Compared(today, judgement, label, tripwires(today, then), tuple(cautions))


def tripwires(today: Measurement, then: Measurement) -> tuple[str, ...]:
    """Every exact figure that differs, as ``name: before -> after``."""
    found = []
    if today.graph is not None and then.graph is not None:
        found = graph_changes(then.graph, today.graph)
    for name in ("streamed_bytes", "kv_bytes"):
        if getattr(today, name) != getattr(then, name):
            found.append(f"{name}: {getattr(then, name)} -> {getattr(today, name)}")
    before, after = then.peak_memory_bytes, today.peak_memory_bytes
    if before and abs(after / before - 1) > PEAK_TOLERANCE:
        found.append(f"peak_memory_bytes: {before} -> {after}")
    return tuple(found)


def graph_changes(before: Graph, after: Graph) -> list[str]:
    """Every count of a decode step that differs, as ``kind.name: before -> after``."""
    return [f"{name}: {old} -> {new}" for name, (old, new) in difference(before, after).items()]


def require_none(workload: str, changed: Sequence[str], then: Stack, now: Stack, *, strict: bool) -> None:
    """Raise CountsChangedError for exact figures that ``changed`` on the same mlx; ``strict``: on any."""
    if changed and (strict or same_mlx(then, now)):
        raise CountsChangedError(
            f"{workload}: exact counts changed: {'; '.join(changed)}",
            expected=f"what the baseline of {(then.commit or 'unknown')[:SHORT_COMMIT]} recorded",
            remedy="if the change is intended, record a new baseline: gemma3n-perf baseline save",
        )
