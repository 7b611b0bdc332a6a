import pytest

from gemma3n_perf.bisecting import bisect
from gemma3n_perf.errors import NotMeasuredError, UsageError
from gemma3n_perf.verdict.types import Judgement, Verdict

STEPS = [f"ref:{number}" for number in range(17)]


class Bench:
    """Compares by number: a loss from ``first`` on, and steps that cannot be told, or only with twice the budget."""

    def __init__(
        self,
        first: int,
        *,
        untold: tuple[int, ...] = (),
        hard: tuple[int, ...] = (),
        sign: str = "loss",
        effect: float = -0.05,
    ) -> None:
        self.first, self.untold, self.hard = first, untold, hard
        self.sign = Verdict(sign)
        self.effect = effect
        self.asked: list[tuple[int, int, float]] = []
        self.margins: list[float] = []

    def __call__(self, baseline: str, candidate: str, budget_s: float, margin: float) -> Judgement:
        """Judge."""
        a, b = int(baseline[4:]), int(candidate[4:])
        self.margins.append(margin)
        self.asked.append((a, b, budget_s))
        if b in self.untold or (b in self.hard and budget_s < 120):
            return Judgement(Verdict.INCONCLUSIVE, "noisy")
        return Judgement(self.sign if a < self.first <= b else Verdict.NO_CHANGE, "", self.effect, -0.06, -0.04)


@pytest.mark.parametrize("first", range(1, 17))
def test_the_first_changed_step_is_found(first: int) -> None:
    """Wherever it is, in as many duels as a binary search needs, with its own effect at the end."""
    bench = Bench(first)
    found = bisect(STEPS, bench, budget_s=60)
    assert list(found.suspects) == [STEPS[first]]
    assert found.last_good == STEPS[first - 1]
    assert found.judgement.verdict is Verdict.LOSS
    assert bench.asked[-1] == (first - 1, first, 60.0)
    assert len(bench.asked) <= 1 + 4 + 1


@pytest.mark.parametrize(("effect", "margin"), [(-0.3, 0.1), (-0.02, 0.01)])
def test_no_change_is_judged_by_the_change_that_is_looked_for(effect: float, margin: float) -> None:
    """A large change is told from none soon, even where the machine is noisy; never more strictly than usual."""
    bench = Bench(5, effect=effect)
    bisect(STEPS, bench, budget_s=60)
    assert bench.margins[0] == 0.01
    assert bench.margins[1:] == pytest.approx([margin] * (len(bench.margins) - 1))


def test_a_speed_up_is_found_alike() -> None:
    """What changed is looked for, in the direction of the ends."""
    assert bisect(STEPS, Bench(5, sign="win"), budget_s=60).suspects == (STEPS[5],)


def test_an_inconclusive_step_gets_twice_the_budget_once() -> None:
    """As a duel of its own."""
    bench = Bench(5, hard=(8,))
    assert bisect(STEPS, bench, budget_s=60).suspects == (STEPS[5],)
    assert [budget for _, step, budget in bench.asked if step == 8] == [60, 120]


def test_a_step_that_cannot_be_told_is_skipped() -> None:
    """The search goes on around it."""
    assert bisect(STEPS, Bench(5, untold=(8,)), budget_s=60).suspects == (STEPS[5],)


def test_skipped_steps_beside_the_change_widen_the_answer() -> None:
    """All that it may be are named, and the effect is that of the newest against the last good one."""
    found = bisect(STEPS, Bench(8, untold=(7, 8)), budget_s=60)
    assert found.suspects == (STEPS[7], STEPS[8], STEPS[9])
    assert found.last_good == STEPS[6]
    assert found.judgement.verdict is Verdict.LOSS


def test_neighbours_need_one_duel() -> None:
    """The ends' own duel is the answer."""
    bench = Bench(1)
    assert bisect(STEPS[:2], bench, budget_s=60).suspects == (STEPS[1],)
    assert len(bench.asked) == 1


def test_ends_that_do_not_differ_are_refused() -> None:
    """There is nothing to find."""
    with pytest.raises(UsageError, match="as fast as"):
        bisect(STEPS, Bench(99), budget_s=60)


def test_ends_that_cannot_be_told_are_not_measured() -> None:
    """A search from there would find noise."""
    with pytest.raises(NotMeasuredError, match="cannot be told"):
        bisect(STEPS, Bench(5, untold=(16,)), budget_s=60)


def test_one_step_is_no_range() -> None:
    """GOOD and BAD must differ."""
    with pytest.raises(UsageError):
        bisect(STEPS[:1], Bench(1), budget_s=60)
