from collections.abc import Sequence

import numpy as np
import pytest

from gemma3n_perf.duel.validation_record import PowerDuel, PowerLaunch
from gemma3n_perf.errors import InvalidError
from studies import validation
from studies.validation import Rate, Trial


def trial(
    launches: Sequence[PowerLaunch],
    *,
    truth: float = 0.0,
    verdict: str = "no-change",
    bounds: tuple[float, float] = (-0.5, 0.5),
    number: int = 1,
    effect: float | None = None,
) -> Trial:
    """Return the trial of a duel that ended so."""
    planted = 1 / (1 + truth) - 1
    said = (verdict, truth if effect is None else effect, *bounds)
    return Trial.of(PowerDuel("2026-07-01", None, number, planted, truth, 60.0, *said, tuple(launches)))


def made(
    truth: float,
    verdict: str,
    *,
    bounds: tuple[float, float] = (-0.5, 0.5),
    seed: int = 0,
    sd: float = 0.001,
    launches: int = 5,
    shift: float = 0.0,
) -> Trial:
    """Return a trial, a round of its own, whose candidate is ``truth`` and ``shift`` faster, blocks scattered by
    ``sd``."""
    rng = np.random.default_rng(seed)
    blocks = [
        PowerLaunch(
            4.0,
            tuple(0.02 * (1 + sd * rng.standard_normal(20))),
            tuple(0.02 / (1 + truth) / (1 + shift) * (1 + sd * rng.standard_normal(20))),
        )
        for _ in range(launches)
    ]
    return trial(blocks, truth=truth, verdict=verdict, bounds=bounds, number=seed)


def test_verdicts_are_counted_by_truth() -> None:
    """Right names the direction, wrong the opposite or a change that is not there."""
    trials = [
        made(-0.1, "loss"), made(-0.1, "inconclusive"), made(-0.1, "win"),
        made(0.0, "no-change"), made(0.0, "win"), made(0.1, "win"),
    ]  # fmt: skip
    slower, same, faster = validation.groups(trials)
    assert [(one.right.count, one.right.of, one.wrong.count) for one in (slower, same, faster)] == [
        (1, 3, 1),
        (1, 2, 1),
        (1, 1, 0),
    ]
    assert slower.verdicts == {"loss": 1, "inconclusive": 1, "win": 1}


def test_no_change_is_a_claim_and_wrong_where_there_is_one() -> None:
    """Of the margin or more; below it, it is neither right nor wrong."""
    for truth, wrong in ((-0.2, 2), (0.01, 2), (0.008, 0), (0.0, 0)):
        (group,) = validation.groups([made(truth, "no-change"), made(truth, "no-change"), made(truth, "inconclusive")])
        assert (group.wrong.count, group.wrong.of) == (wrong, 3)


def test_duels_of_one_round_are_worth_fewer() -> None:
    """Ten duels of each of eight rounds that err alike are worth eight, ten that err each for itself are worth all."""
    rng = np.random.default_rng(2)
    launches = made(0.0, "no-change").duel.launches
    for own, shared, least, most in ((0.0001, 0.01, 7.9, 9.0), (0.01, 0.0, 40.0, 80.0)):
        trials = []
        for number in range(8):
            common = shared * rng.standard_normal()
            errors = common + own * rng.standard_normal(10)
            trials += [trial(launches, number=number, effect=float(error)) for error in errors]
        assert least <= validation.worth(trials, validation.correlation(trials)) <= most
    few, many = Rate(0, 80, 8.0).interval[1], Rate(0, 80).interval[1]
    assert few == pytest.approx(1 - 0.025 ** (1 / 8))
    assert many == pytest.approx(1 - 0.025 ** (1 / 80))


def test_coverage_counts_intervals_that_hold_the_truth() -> None:
    """An interval beside the truth is counted against."""
    group = validation.groups([made(0.02, "win", bounds=(0.01, 0.03)), made(0.02, "win", bounds=(0.021, 0.03))])[0]
    assert (group.covered.count, group.covered.of) == (1, 2)


def test_rates_carry_exact_intervals() -> None:
    """None of 100 is at most 3.6 %, as Clopper and Pearson have it."""
    low, high = Rate(0, 100).interval
    assert low == 0.0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-6)


def test_resampled_duels_err_as_rarely_as_they_promise_and_see_what_is_there() -> None:
    """Quiet launches show 2 % always, and A/A is hardly ever called a change."""
    trials = [made(0.05, "win", seed=seed, sd=0.01) for seed in range(20)]
    none = validation.resample(trials, 0.0, budget_s=60.0, duels=2000, seed=1)
    some = validation.resample(trials, -0.02, budget_s=60.0, duels=2000, seed=2)
    assert none.win.share + none.loss.share < 0.01
    assert none.covered.share > 0.9
    assert some.loss.share > 0.95
    assert some.win.count == 0
    with pytest.raises(InvalidError, match="to draw from"):
        validation.resample(trials[:2], 0.0, budget_s=60.0, duels=10, seed=1)


def test_what_differs_between_rounds_stays_in_resampled_duels_and_their_mean_does_not() -> None:
    """Rounds that lie 1 % apart make duels miss the truth; a plant that is always 1 % off is taken out."""
    rng = np.random.default_rng(3)
    apart = [made(0.0, "no-change", seed=seed, shift=0.01 * rng.standard_normal(), launches=8) for seed in range(30)]
    off = [made(0.02, "win", seed=seed, shift=0.01, launches=8) for seed in range(30)]
    assert validation.resample(apart, 0.0, budget_s=60.0, duels=1000, seed=1).covered.share < 0.7
    none = validation.resample(off, 0.0, budget_s=60.0, duels=1000, seed=1)
    assert none.no_change.share > 0.99
    assert none.covered.share > 0.9


def test_the_scatter_about_the_truth_is_told() -> None:
    """It is that of the launches, whatever was planted."""
    scatter, shown = validation.spread(
        [made(truth, "win", seed=seed, sd=0.02) for seed, truth in enumerate((0.0, 0.1) * 20)]
    )
    assert scatter == pytest.approx(0.02 * np.sqrt(2 / 20), rel=0.2)
    assert shown == pytest.approx(scatter, rel=0.4)


def test_a_trial_reads_steps_where_they_were_told() -> None:
    """Slow steps that one arm met in one launch move other tools' samples, and not what the judge reads; met in each
    launch, they are the arm's own."""
    calm, spoiled = (0.02,) * 5, (0.02, 0.02, 0.12, 0.02, 0.02)
    steps = ((calm,) * 6, (calm, calm, spoiled, calm, spoiled, calm))
    base, cand = (tuple(sum(block) / 5 for block in arm) for arm in steps)
    disturbed = PowerLaunch(3.0, base, cand, steps)
    quiet = PowerLaunch(3.0, base, base, (steps[0], steps[0]))
    found = trial([disturbed, quiet, quiet])
    assert found.launches[0].log_ratio == pytest.approx(0.0, abs=1e-12)
    assert found.samples[1][0] > 1.3 * found.samples[0][0]
    found = trial([disturbed] * 12)
    assert found.launches[0].log_ratio == pytest.approx(-np.log(found.samples[1][0] / found.samples[0][0]))


def stepwise(seed: int, truth: float = 0.0) -> PowerLaunch:
    """A launch of 30 pairs of blocks, three steps each, on a core that is half as slow again half of the time."""
    rng = np.random.default_rng(seed)
    times = 0.02 * np.exp(rng.normal(0, 0.02, (2, 30, 3))) * np.where(rng.random((2, 30, 1)) < 0.5, 1.0, 1.5)
    times[1] /= 1 + truth
    steps = tuple(tuple(tuple(block) for block in arm) for arm in times.tolist())
    base, cand = (tuple(sum(block) / 3 for block in arm) for arm in steps)
    return PowerLaunch(4.0, base, cand, steps)


def test_a_candidates_process_that_is_slow_at_times_shows_in_its_rounds_whole_times() -> None:
    """Whichever of the two was slowed: where that is the baseline, the processes have each other's names."""
    for planted in (0.02, -0.02):
        launches = []
        for base, cand in (stepwise(seed, -0.02).steps_s for seed in range(8)):
            stalled = (*(tuple((2.5 * a, b, c)) for a, b, c in cand[:6]), *cand[6:])
            steps = (base, stalled) if planted > 0 else (stalled, base)
            launches.append(PowerLaunch(4.0, (0.02,) * 30, (0.02,) * 30, steps))
        found = validation.slower([trial(launches, truth=1 / (1 + planted) - 1, number=3)])
        count, typical, scatter, whole = found[3]
        assert count == 8
        assert abs(typical) < 0.01
        assert 0 < scatter < 0.02
        assert whole == pytest.approx(0.1, abs=0.05)
    assert validation.slower([made(0.0, "no-change")]) == {}


def test_ways_to_read_steps_are_held_against_the_truth() -> None:
    """Of the launches that told their steps, and of no others."""
    launches = trial([stepwise(seed, 0.02) for seed in range(10)], truth=0.02)
    count, errors = validation.step_errors([launches, trial([PowerLaunch(4.0, (0.02, 0.02), (0.01, 0.01))])])
    assert count == 10
    assert errors["aligned (used)"] < min(0.01, errors["mean of pairs"], errors["median, pairs side by side"])
    assert validation.step_errors([]) == (0, {})


def test_duels_are_resampled_from_launches_that_were_read_as_they_are_now() -> None:
    """Where some told their steps, the others are not mixed in."""
    old, new = made(0.0, "no-change", launches=40), [stepwise(seed) for seed in range(6)]
    mixed = [old, trial(new)]
    assert len(validation.drawn_from([old])) == 40
    assert len(validation.drawn_from(mixed)) == 6
    with pytest.raises(InvalidError, match="6 launches of 1 rounds to draw from"):
        validation.resample(mixed, 0.0, budget_s=60.0, duels=10, seed=1)
