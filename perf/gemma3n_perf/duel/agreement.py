"""What both arms must have in common before their times are compared: the work they do, and the tokens they decode."""

import msgspec

from gemma3n_perf.duel import worker as wire
from gemma3n_perf.errors import InvalidError, NotComparableError
from gemma3n_perf.hardware.types import Stack

ARMS = ("baseline", "candidate")


def same_work(baseline: wire.Loaded, candidate: wire.Loaded) -> tuple[str, ...]:
    """Raise NotComparableError naming what the arms have not in common; there is nothing to note."""
    ours, theirs = msgspec.structs.asdict(baseline), msgspec.structs.asdict(candidate)
    for what in ours:
        if ours[what] != theirs[what]:
            raise NotComparableError(
                f"the arms differ in {what.replace('_', ' ')}: {ours[what]}, {theirs[what]}",
                expected="the same checkpoint bytes, prompt and token counts on both sides",
                remedy="compare commits that share the workload's definition, over one checkpoint",
            )
    return ()


def same_tokens(
    digests: tuple[str, str],
    stacks: tuple[Stack, Stack],
    packages: tuple[tuple[object, ...], tuple[object, ...]],
    *,
    may_differ: bool = False,
) -> tuple[str, ...]:
    """Raise InvalidError where the arms decode different tokens on one stack; between stacks return a note of it.

    ``may_differ`` says that logits are compared elsewhere: another order of rounding may turn a near tie.
    """
    if digests[0] == digests[1]:
        return ()
    versions = [(stack.mlx, stack.mlx_vlm, stack.backend) for stack in stacks]
    if versions[0] != versions[1] or packages[0] != packages[1]:
        return ("the arms decode different greedy tokens, as different versions of mlx or mlx-vlm may",)
    if may_differ:
        return ("the arms decode different greedy tokens: whether rightly so is for their parity to say",)
    raise InvalidError(
        "the arms decode different greedy tokens on the same mlx and mlx-vlm",
        expected="the same tokens: a change of speed must not change what is said",
        remedy="find the first logits that differ; nothing measured here would count",
    )
