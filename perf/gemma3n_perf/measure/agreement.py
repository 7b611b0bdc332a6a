"""What both arms must have in common before their times are compared: the work they do, and the tokens they decode."""

from collections.abc import Mapping

import msgspec

from gemma3n_perf.errors import InvalidError, NotComparableError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.measure import worker as wire
from gemma3n_perf.measure.ready import ReadyArm

ARMS = ("baseline", "candidate")


def same_work(loaded: Mapping[str, wire.Loaded]) -> None:
    """Raise NotComparableError naming what the arms have not in common."""
    ours, theirs = (msgspec.structs.asdict(loaded[name]) for name in ARMS)
    for what in ours:
        if ours[what] != theirs[what]:
            raise NotComparableError(
                f"the arms differ in {what.replace('_', ' ')}: {ours[what]}, {theirs[what]}",
                expected="the same checkpoint bytes, prompt and token counts on both sides",
                remedy="compare commits that share the workload's definition, over one checkpoint",
            )


def same_tokens(
    tokens: Mapping[str, str], stacks: Mapping[str, Stack], arms: tuple[ReadyArm, ReadyArm]
) -> tuple[str, ...]:
    """Raise InvalidError where the arms decode different tokens on one stack; between stacks return a note of it."""
    ours, theirs = (tokens[name] for name in ARMS)
    if ours == theirs:
        return ()
    versions = [(stacks[name].mlx, stacks[name].mlx_vlm, stacks[name].backend) for name in ARMS]
    if versions[0] == versions[1] and arms[0].packages == arms[1].packages:
        raise InvalidError(
            "the arms decode different greedy tokens on the same mlx and mlx-vlm",
            expected="the same tokens: a change of speed must not change what is said",
            remedy="find the first logits that differ; nothing measured here would count",
        )
    return ("the arms decode different greedy tokens, as different versions of mlx or mlx-vlm may",)
