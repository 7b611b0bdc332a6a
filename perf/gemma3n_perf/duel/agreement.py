"""What both arms must have in common before their times are compared: the work they do, and what they put out."""

from collections.abc import Sequence

import msgspec
import numpy as np

from gemma3n_perf.duel import protocol as wire
from gemma3n_perf.errors import InvalidError, NotComparableError
from gemma3n_perf.stats.verdicts import Caution

ARMS = ("baseline", "candidate")

FARTHEST = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.07}
"""How far the logits of two right programs may lie apart, by the type they are computed in: root mean square of the
difference, as a share of that of the logits. Forged weights are made so that a layer left out moves them farther
(docs/method.md). Over versions of mlx-vlm or mlx the last one holds: 0.5 and 0.6 differ by 2 % in float32."""

NEAR = 7.0
"""How near two tokens' logits are a tie: so many times what the arms' logits lie apart on the whole. Where one of two
numbers gains what the other loses, both at random, five standard deviations are that many."""
SPACING = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""How far neighbouring numbers of a type lie apart, as a share of them: two such steps are a tie in any case."""

LEAST_PAIRS, MOST_PARTED = 10, 0.25
"""Of blocks, whose tokens tell whether the arms decode the same texts; and the share of them that may not. Fusions of
nano decode the same in each of 144 texts of 64 tokens."""


def same_work(baseline: wire.Loaded, candidate: wire.Loaded) -> tuple[Caution, ...]:
    """Raise NotComparableError naming what the arms have not in common; there is nothing to caution of."""
    ours, theirs = msgspec.structs.asdict(baseline), msgspec.structs.asdict(candidate)
    for what in ours:
        if ours[what] != theirs[what]:
            raise NotComparableError(
                f"the arms differ in {what.replace('_', ' ')}: {ours[what]}, {theirs[what]}",
                expected="the same checkpoint bytes, prompt and token counts on both sides",
                remedy="compare commits that share the workload's definition, over one checkpoint",
            )
    return ()


def same_tokens(digests: tuple[str, str], *, may_differ: bool = False) -> tuple[Caution, ...]:
    """Raise InvalidError where the arms decode different greedy tokens; with ``may_differ``, return a caution."""
    return () if digests[0] == digests[1] else _differ("the arms decode different greedy tokens", may_differ)


def same_texts(agreed: Sequence[bool]) -> InvalidError | None:
    """Say that in many pairs of blocks the arms decoded different tokens: what was timed is not the same work.

    Rounding may part a few texts; whole runs, whose logits are compared, tell of what blocks share with them.
    """
    differ = len(agreed) - sum(agreed)
    if len(agreed) < LEAST_PAIRS or differ <= MOST_PARTED * len(agreed):
        return None
    return InvalidError(
        f"the arms decode different greedy tokens in {differ} of {len(agreed)} pairs of blocks",
        expected="the same tokens, but where rounding parts a text",
        remedy="compare outputs in blocks and whole runs; pass --outputs-may-differ where they may differ",
    )


def parted(runs: tuple[wire.Whole, wire.Whole]) -> int | None:
    """The first step, from 0, at which two whole runs decode different tokens; None where there is none."""
    return next(
        (i for i, pair in enumerate(zip(runs[0].tokens, runs[1].tokens, strict=True)) if len(set(pair)) > 1), None
    )


def is_near_tie(
    runs: tuple[wire.Whole, wire.Whole], logits: tuple[np.ndarray, np.ndarray], *, same_versions: bool = True
) -> bool:
    """Whether rounding alone makes two runs part at their last token, which ``logits``, (vocabulary,), chose.

    It does where these lie no farther apart than those of right programs, and both tokens lead in both, or nearly.
    """
    if _too_far(runs, logits, same_versions):
        return False
    chosen = [run.tokens[-1] for run in runs]
    if not all(0 <= token < len(logits[0]) for token in chosen):
        return False
    spacing = SPACING.get(runs[0].dtype, 0.0)
    apart = float(np.sqrt(np.mean(np.square(logits[1] - logits[0]))))
    return all(
        own[token] == own.max() and own[token] - own[other] <= NEAR * apart + 2 * spacing * abs(own[token])
        for own, token, other in zip(logits, chosen, reversed(chosen), strict=True)
    )


def same_outputs(
    runs: tuple[wire.Whole, wire.Whole],
    logits: tuple[np.ndarray, np.ndarray],
    *,
    same_versions: bool = True,
    may_differ: bool = False,
) -> tuple[Caution, ...]:
    """Compare a whole run of both arms: its greedy tokens, and the logits after the last one, shape (vocabulary,).

    Raises InvalidError where they differ by more than rounding explains; with ``may_differ``, returns a caution.
    """
    step = parted(runs)
    if step is not None:
        return _differ(f"the arms decode different greedy tokens from step {step + 1} of a whole run on", may_differ)
    far = _too_far(runs, logits, same_versions)
    return _differ(far, may_differ) if far else ()


def same_logits(
    written: tuple[wire.Written, wire.Written], logits: tuple[np.ndarray, np.ndarray], *, same_versions: bool = True
) -> None:
    """Compare logits, (vocabulary,), of one step of blocks that decoded the same text. Raises InvalidError where they
    differ by more than rounding explains."""
    far = _too_far(written, logits, same_versions, "in a block")
    if far:
        _differ(far, may_differ=False)


def _too_far(
    runs: tuple[wire.Whole, wire.Whole] | tuple[wire.Written, wire.Written],
    logits: tuple[np.ndarray, np.ndarray],
    same_versions: bool,
    where: str = "after a whole run",
) -> str | None:
    """Say that logits lie farther apart than rounding explains."""
    if logits[0].shape != logits[1].shape or not all(np.isfinite(one).all() for one in logits):
        return "the logits of the arms differ in shape, or are not finite"
    apart = float(np.sqrt(np.mean(np.square(logits[1] - logits[0])) / np.mean(np.square(logits[0]))))
    most = max(FARTHEST.values())
    # A candidate that computes in another type is held to the baseline's.
    farthest = FARTHEST.get(runs[0].dtype, most) if same_versions else most
    if apart <= farthest:
        return None
    return (
        f"the logits of the arms lie {100 * apart:.2g} % apart {where}, where rounding explains {100 * farthest:.2g} %"
    )


def _differ(found: str, may_differ: bool) -> tuple[Caution, ...]:
    remedy = "look at the outputs before trusting that both do the same work"
    if may_differ:
        return (Caution("outputs-differ", found, remedy),)
    raise InvalidError(
        found,
        expected="the same tokens and logits: a change of speed must not change what is said",
        remedy="find the first logits that differ; where they may, pass --outputs-may-differ",
    )
