"""Which steps of a range changed the speed, and by how much each: a search in which a step may stay undecided.

Opinion: a step is called changed or unchanged only by a verdict that says so, of a duel with its own neighbour. A range
has a change where its duel shows one, or where its other half shows none; ranges are halved until each change is one
step. A step counts from a share of the ends' change on, so that a large change does not take long to find. What stays
inconclusive with twice the budget is skipped, as ``git bisect skip`` does: it widens the answer instead of spoiling it.
Where both duels of it have their whole interval and nearly all launches beyond the threshold on one side, and something
else withholds the verdict (halves that differ, whole runs), it is followed like a change, and named as a probable one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.estimates import relative_change
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.verdicts import Judgement, Verdict, decide

Compare = Callable[[str, str, float, Policy, bool], Judgement]
"""From baseline arm, candidate arm, budget in seconds, rules, and whether to stop as soon as something is shown."""

_LEAST_SHARE = 1 / 8
"""A step with less than this share of the ends' change is not looked for."""

_MOST = 0.5
"""The largest share of throughput that is asked of a step: ends can differ by several times it."""

_NEARLY_ALL = 2.0
"""Standard deviations of launches: a fifth of them without the change would widen them beyond this."""

_PRECISE = 0.01
"""Half an interval that says well enough how much a step changed; a wider one is measured once more, to the end."""


@dataclass(frozen=True, slots=True)
class Step:
    """A change: of one of ``suspects``, oldest first, which is one arm unless some between stayed undecided.

    ``before`` is the newest arm before them; ``judgement`` compares the newest suspect with it, and ``share`` is its
    part of the ends' change, 1 for all of it (of logarithms of throughput, which add up). A probable change has an
    inconclusive judgement.
    """

    suspects: tuple[str, ...]
    before: str
    judgement: Judgement
    share: float


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: the ``ends`` compared, and every step that changed the speed, oldest first.

    ``least`` is the smallest change of a step that was looked for; ``unclear`` are ranges (before, newest, judgement)
    of which nothing could be shown; ``unexplained`` is the change of the ends that no step here has. Fractions of
    throughput.
    """

    ends: Judgement
    steps: tuple[Step, ...]
    least: float
    unclear: tuple[tuple[str, str, Judgement], ...] = ()

    @property
    def unexplained(self) -> float:
        """What is left of the ends' change without the steps that were found."""
        return relative_change(_log(self.ends) - math.fsum(_log(one.judgement) for one in self.steps))


def bisect(
    steps: Sequence[str], compare: Compare, *, budget_s: float, note: Callable[[str], None] = lambda text: None
) -> Found:
    """Search ``steps``, arms from the good one to the bad one, for all that changed the speed.

    There are none where the ends do not differ, or stay undecided. Raises UsageError for fewer than two steps.
    """
    if len(steps) < 2:
        raise UsageError(f"{len(steps)} steps to search", expected="a good and a bad one, different from each other")
    note(f"comparing the ends: {steps[0]} and {steps[-1]}")
    search = _Search(steps, compare, budget_s, note)
    ends, _ = search.judged(0, len(steps) - 1)
    if not ends.verdict.is_claim:
        return Found(ends, (), search.policy.margin)
    search.policy = _step_policy(ends, search.policy)
    search.within(0, len(steps) - 1, ends)
    found = tuple(
        Step(tuple(steps[good + 1 : bad + 1]), steps[good], one, _log(one) / _log(ends))
        for good, bad, one in sorted(search.found, key=lambda item: item[0])
    )
    unclear = tuple((steps[good], steps[bad], one) for good, bad, one in search.unclear)
    return Found(ends, found, search.policy.margin, unclear)


@dataclass(slots=True)
class _Search:
    """Halves ranges until each change is one step, or stays undecided. ``policy`` are the rules of a step."""

    steps: Sequence[str]
    compare: Compare
    budget_s: float
    note: Callable[[str], None]
    policy: Policy = field(default_factory=Policy)
    skipped: set[int] = field(default_factory=set)
    found: list[tuple[int, int, Judgement]] = field(default_factory=list)
    unclear: list[tuple[int, int, Judgement]] = field(default_factory=list)

    def within(self, good: int, bad: int, own: Judgement | None) -> None:
        """Find all changes from ``good`` to ``bad``; ``own`` is the change that a duel of these two showed, if any."""
        while (middle := self._middle(good, bad)) is not None:
            self.note(f"{bad - good - 1} steps between: trying {self.steps[middle]}")
            left, changed = self.judged(good, middle)
            if left.verdict is Verdict.NO_CHANGE:
                good, own = middle, None
                continue
            if not changed:
                self.skipped.add(middle)
                continue
            self.within(good, middle, left)
            right, changed = self.judged(middle, bad)
            if changed:
                self.within(middle, bad, right)
            elif not right.verdict.decided:
                self.unclear.append((middle, bad, right))
            return
        self._name(good, bad, own)

    def _name(self, good: int, bad: int, own: Judgement | None) -> None:
        """Keep a range that is a change by its own duel; where that is wide, by one that is measured to the end."""
        changed = True
        if own is None:
            own, changed = self.judged(good, bad, settle=False)
        elif own.verdict.is_claim and not _is_precise(own):
            again = self.compare(self.steps[good], self.steps[bad], self.budget_s, self.policy, False)
            own = again if again.verdict.decided else own
            changed = own.verdict.is_claim
        if changed:
            self.found.append((good, bad, own))
        elif not own.verdict.decided:
            self.unclear.append((good, bad, own))

    def judged(self, good: int, bad: int, *, settle: bool = True) -> tuple[Judgement, bool]:
        """Duel two steps, again where the machine may have had a bad moment, and longer where nothing was shown.

        Says also whether they differ: by a verdict, or by what both duels agree on though neither may say it.
        """
        arms = self.steps[good], self.steps[bad]
        first = self.compare(*arms, self.budget_s, self.policy, settle)
        if first.verdict is Verdict.NOT_MEASURED:  # an arm that cannot be built fails again at once
            first = self.compare(*arms, self.budget_s, self.policy, settle)
        if first.verdict is not Verdict.INCONCLUSIVE:
            return first, first.verdict.is_claim
        # A budget is fixed beforehand: twice as much is another duel, not a longer one.
        second = self.compare(*arms, 2 * self.budget_s, self.policy, settle)
        leaning = second.verdict is Verdict.INCONCLUSIVE and _seems(second).is_claim
        return second, second.verdict.is_claim or (leaning and _seems(first) is _seems(second))

    def _middle(self, good: int, bad: int) -> int | None:
        """The untried step nearest to the middle, or None."""
        middle = (good + bad) / 2
        untried = [step for step in range(good + 1, bad) if step not in self.skipped]
        return min(untried, key=lambda step: abs(step - middle), default=None)


def _is_precise(one: Judgement) -> bool:
    return one.low is not None and one.high is not None and one.high - one.low <= 2 * _PRECISE


def _seems(one: Judgement) -> Verdict:
    """What the reported interval alone would say, where nearly all launches say so, each by itself.

    A disturbance that outlasts some launches moves their mean, and the others do not bear it out.
    """
    threshold = one.threshold or 0.0
    if (
        one.low is None
        or one.high is None
        or abs(_log(one)) <= math.log1p(threshold) + _NEARLY_ALL * (one.launch_sd or 0)
    ):
        return Verdict.INCONCLUSIVE
    return decide(one.low, one.high, threshold=threshold, margin=0.0)


def _log(one: Judgement) -> float:
    return math.log1p(one.effect or 0.0)


def _step_policy(ends: Judgement, policy: Policy) -> Policy:
    """The rules for a step: a change counts from a share of the ends' change on, and less than that counts as none."""
    share = min(_LEAST_SHARE * abs(ends.effect or 0.0), _MOST)
    return replace(policy, margin=max(policy.margin, share), minimum_effect=max(policy.minimum_effect, share))
