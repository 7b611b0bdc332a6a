"""Which step of a range changed the speed: a binary search that knows a step may not be tellable.

Opinion: a step is called changed or unchanged only by a verdict that says so. The question of each is whether it has
the change that the ends have, so the larger that is, the more a step must have of it to count as changed. What stays
inconclusive with twice the budget is skipped, as ``git bisect skip`` does: it widens the answer instead of spoiling it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, Verdict

Compare = Callable[[str, str, float, Policy], Judgement]
"""From baseline arm, candidate arm, budget in seconds and the rules to judge by to a judgement."""

_LEAST_SHARE = 1 / 3
"""A step with less than this share of the ends' change counts as unchanged, one with more as changed."""

_MOST = 0.5
"""The largest share of throughput that is asked of a step: ends can differ by several times it."""


@dataclass(frozen=True, slots=True)
class Found:
    """The first changed step is among ``suspects``, oldest first: one of them, unless steps were skipped.

    ``last_good`` is the newest step known to be unchanged; ``judgement`` compares the newest suspect with it, and
    ``confirmed`` says that it has the ends' verdict: else their change came in several steps. ``tried`` are all
    comparisons in order.
    """

    suspects: tuple[str, ...]
    last_good: str
    judgement: Judgement
    tried: tuple[tuple[str, Judgement], ...]
    confirmed: bool = True


def bisect(
    steps: Sequence[str], compare: Compare, *, budget_s: float, note: Callable[[str], None] = lambda text: None
) -> Found:
    """Search ``steps``, arms from the good one to the bad one, for the first that differs from ``steps[0]``.

    Raises UsageError for fewer than two steps, or where the ends do not differ; NotMeasuredError where that cannot
    be told.
    """
    if len(steps) < 2:
        raise UsageError(f"{len(steps)} steps to search", expected="a good and a bad one, different from each other")
    good, bad, skipped = 0, len(steps) - 1, set[int]()
    tried: list[tuple[str, Judgement]] = []

    policy = Policy()

    def judged(index: int, baseline: int = 0) -> Judgement:
        found = compare(steps[baseline], steps[index], budget_s, policy)
        if found.verdict is Verdict.INCONCLUSIVE:
            # A budget is fixed beforehand: twice as much is another duel, not a longer one.
            found = compare(steps[baseline], steps[index], 2 * budget_s, policy)
        tried.append((steps[index], found))
        return found

    note(f"comparing the ends: {steps[0]} and {steps[-1]}")
    ends = judged(bad)
    _require_changed(ends, steps)
    policy = _asking(ends, policy)
    while (step := _middle(good, bad, skipped)) is not None:
        note(f"{bad - good - 1} steps left: trying {steps[step]}")
        verdict = judged(step).verdict
        if verdict is ends.verdict:
            bad = step
        elif verdict.decided:
            good = step
        else:
            skipped.add(step)
    suspects = tuple(steps[good + 1 : bad + 1])
    final = ends if (good, bad) == (0, len(steps) - 1) else judged(bad, good)
    return Found(suspects, steps[good], final, tuple(tried), final.verdict is ends.verdict)


def _asking(ends: Judgement, policy: Policy) -> Policy:
    """The rules for a step: less than a share of the ends' change is none, and only more than that is one."""
    share = min(_LEAST_SHARE * abs(ends.effect or 0.0), _MOST)
    return replace(policy, margin=max(policy.margin, share), minimum_effect=max(policy.minimum_effect, share))


def _middle(good: int, bad: int, skipped: set[int]) -> int | None:
    """The untried step nearest to the middle, or None."""
    middle = (good + bad) / 2
    untried = [step for step in range(good + 1, bad) if step not in skipped]
    return min(untried, key=lambda step: abs(step - middle), default=None)


def _require_changed(ends: Judgement, steps: Sequence[str]) -> None:
    if ends.verdict is Verdict.NO_CHANGE:
        raise UsageError(
            f"{steps[-1]} is as fast as {steps[0]}: {ends.reason}",
            expected="ends that differ: there is nothing to search for",
        )
    if not ends.verdict.decided:
        raise NotMeasuredError(
            f"whether {steps[-1]} differs from {steps[0]} cannot be told: {ends.verdict}: {ends.reason}",
            expected="ends that differ",
            remedy="raise --budget, or choose ends further apart",
        )
