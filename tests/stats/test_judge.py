"""The judge says what the launches show, no more, and the same every time."""

import datetime as dt
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import stdtrit

from gemma3n_perf.errors import InvalidError
from gemma3n_perf.stats.detectable import Sensitivity
from gemma3n_perf.stats.estimates import LaunchEstimate, estimate_launch
from gemma3n_perf.stats.judge import judge, judge_session, should_stop, win_repeats
from gemma3n_perf.stats.multiple import Duel, judge_many
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import NoiseFloor
from gemma3n_perf.stats.verdicts import NoiseStatus, Verdict, decide, invalid, not_measured

DAY = dt.date(2026, 1, 1)
POLICY = Policy()
PATTERN = (0.6, -0.9, 0.3, -0.4, 1.1, -0.7, 0.2, -0.2, 0.8, -1.0, 0.5, -0.3)
NOISE = NoiseFloor(0.002, 0.004, 60, 10, 0.003, DAY)


def launches(effect: float, n: int = 12, sd: float = 0.008, seconds: float = 5.0) -> list[LaunchEstimate]:
    """Launches around a true effect, scattered by a fixed pattern of mean near zero."""
    return [LaunchEstimate(math.log1p(effect) + sd * PATTERN[i % 12], seconds) for i in range(n)]


@pytest.mark.parametrize(
    ("effect", "verdict", "code"),
    [(0.02, Verdict.WIN, 0), (-0.02, Verdict.LOSS, 1), (0.0, Verdict.NO_CHANGE, 0), (0.0075, Verdict.INCONCLUSIVE, 3)],
)
def test_verdict_and_exit_code_of_each_case(effect: float, verdict: Verdict, code: int) -> None:
    """Above the threshold is a win, below a loss, inside the margin no change, across them nothing."""
    found = judge(launches(effect), POLICY, budget_spent=True)
    assert (found.verdict, found.verdict.exit_code) == (verdict, code)
    assert found.effect == pytest.approx(effect, abs=1e-3)
    assert found.low is not None
    assert found.high is not None
    assert found.low < effect < found.high


def test_an_end_on_a_bound_is_not_beyond_it() -> None:
    """A change lies beyond the threshold, and no change within the margin, with both ends."""
    for low, high, verdict in (
        (0.005, 0.02, Verdict.INCONCLUSIVE), (0.0051, 0.02, Verdict.WIN),
        (-0.02, -0.005, Verdict.INCONCLUSIVE), (-0.02, -0.0051, Verdict.LOSS),
        (-0.01, 0.0, Verdict.INCONCLUSIVE), (0.0, 0.01, Verdict.INCONCLUSIVE), (-0.0099, 0.0099, Verdict.NO_CHANGE),
    ):  # fmt: skip
        assert decide(low, high, threshold=0.005, margin=0.01) is verdict


def test_change_within_the_margin_is_still_a_change() -> None:
    """A whole interval between the minimum effect and the margin is a win or a loss, not no-change."""
    for effect, verdict in ((0.008, Verdict.WIN), (-0.008, Verdict.LOSS)):
        found = judge(launches(effect, sd=0.001), POLICY, budget_spent=True)
        assert found.verdict is verdict
        assert 0.005 < abs(found.low or 0) < 0.01
        assert 0.005 < abs(found.high or 0) < 0.01


def test_reason_says_whether_the_budget_is_spent() -> None:
    """Used up by the launches, or declared spent; before that it says how many launches there were."""
    seen = [
        judge(launches(0.0075, 6), POLICY, budget_s=budget, budget_spent=spent).reason[:19]
        for budget, spent in ((60, False), (60, True), (30, False))
    ]
    assert seen == ["after 6 launches th", "the budget is spent", "the budget is spent"]


def test_intervals_support_the_verdict() -> None:
    """A decided verdict's reported interval lies where the verdict says; the deciding one is no narrower."""
    for effect in (0.02, -0.02, 0.0, 0.1):
        found = judge(launches(effect), POLICY, budget_spent=True)
        assert None not in (found.low, found.high, found.bound_low, found.bound_high)
        assert (found.bound_low or 0) <= (found.low or 0) <= (found.high or 0) <= (found.bound_high or 0)
        inside = {
            Verdict.WIN: (found.bound_low or 0) > 0.005,
            Verdict.LOSS: (found.bound_high or 0) < -0.005,
            Verdict.NO_CHANGE: (found.bound_low or 0) > -0.01 and (found.bound_high or 0) < 0.01,
        }
        assert inside[found.verdict]


def test_an_early_look_says_which_interval_decides() -> None:
    """Where the reported interval alone would look like a win, the reason names the one that shows none."""
    found = judge(launches(0.02, 5), POLICY, budget_s=600)
    won = judge(launches(0.02, 5), POLICY, budget_s=25, budget_spent=True)
    assert (won.verdict, found.verdict) == (Verdict.WIN, Verdict.INCONCLUSIVE)
    assert (won.low, won.high) == (found.low, found.high)
    assert (found.bound_low or 0) < 0.005 < (found.low or 0)
    assert f"the interval that decides (98 % over all looks), {100 * (found.bound_low or 0):+.2f} %" in found.reason
    assert "the whole interval (95 %), " in won.reason


def test_undecided_interval_is_the_plain_one_where_it_does_not_decide() -> None:
    """At the end of the budget the usual 95 % interval is reported, narrower than the one that decides."""
    found = judge(launches(0.0075), POLICY, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert (found.bound_low or 0) < (found.low or 0) < 0.005 < 0.01 < (found.high or 0) < (found.bound_high or 0)


def test_inconclusive_says_what_would_have_been_seen() -> None:
    """The smallest detectable effect, for these launches and for the whole budget, is in numbers and words."""
    found = judge(launches(0.0075, 6), POLICY, budget_s=120)
    assert found.detectable is not None
    assert found.detectable_at_budget is not None
    assert 0.005 < found.detectable_at_budget < found.detectable
    last_look = Sensitivity(found.launch_sd or 0, 0.008).effect(6, threshold=math.log1p(0.005))
    assert found.detectable == pytest.approx(math.expm1(last_look))
    assert f"a change of {100 * found.detectable:.2f} % with 80% chance" in found.reason
    assert found.needed_s is not None
    assert found.needed_s > 30
    assert f"about {found.needed_s:.0f} s" in found.reason
    among = judge(launches(0.0075, 6), replace(POLICY, shares=4), budget_s=120)
    assert (among.detectable or 0.0) > found.detectable


@pytest.mark.parametrize(("effect", "threshold", "of"), [(0.02, math.log1p(0.005), None), (0.0, None, 0.01)])
def test_time_needed_is_for_an_effect_of_the_size_seen(
    effect: float, threshold: float | None, of: float | None
) -> None:
    """A change is to lie beyond the threshold, and what looks like none is to be bounded by the margin."""
    found = judge(launches(effect, 4, sd=0.02), POLICY)
    size = abs(math.fsum(one.log_ratio for one in launches(effect, 4, sd=0.02)) / 4)
    sensitivity = Sensitivity(found.launch_sd or 0, 0.008)
    count = sensitivity.launches(
        size if of is None else math.log1p(of), threshold=size if threshold is None else threshold
    )
    assert count is not None
    assert found.needed_s == pytest.approx(5.0 * count)
    assert f"about {5 * count:.0f} s of measuring" in found.reason


def test_time_needed_is_not_said_where_it_was_measured() -> None:
    """Bad luck, and no reason to expect more of as many launches."""
    found = judge(launches(0.02, 4, sd=0.004), POLICY, budget_s=600)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.needed_s is not None
    assert found.needed_s <= found.measured_s
    assert "of measuring" not in found.reason


def test_the_same_launches_win_later_but_not_at_an_early_look() -> None:
    """Looking early costs: an interval that suffices at the end does not suffice after three launches."""
    few = launches(0.02, 3, sd=0.003)
    assert judge(few, POLICY, budget_s=16, budget_spent=True).verdict is Verdict.WIN
    assert judge(few, POLICY, budget_s=600, budget_spent=True).verdict is Verdict.WIN
    assert judge(few, POLICY, budget_s=600).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("budget_s", [60.0, 180.0])
@pytest.mark.parametrize("effect", [0.1, -0.1])
def test_ten_percent_stops_within_twenty_seconds(effect: float, budget_s: float) -> None:
    """A large effect is decided after at most four launches of 4.5 s."""
    duel = launches(effect, 4, seconds=4.5)
    found = [judge(duel[:n], POLICY, budget_s=budget_s) for n in range(1, 5)]
    stops = [n for n, judgement in enumerate(found, start=1) if should_stop(judgement)]
    assert stops
    assert stops[0] * 4.5 < 20


def test_too_few_launches_decide_nothing() -> None:
    """Two launches that agree perfectly are still two launches, and the reason says how long would do."""
    found = judge(launches(0.5, 2, sd=0.0), POLICY, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert (found.low, found.high) == (None, None)
    assert "2 of at least 3 launches" in found.reason
    assert "15 s" in found.reason


def test_no_launch_is_not_measured() -> None:
    """Nothing measured is never reported as done."""
    assert judge([], POLICY).verdict is Verdict.NOT_MEASURED
    assert not_measured("offline").verdict.exit_code == 4
    assert invalid("tokens differ").verdict.exit_code == 5


def test_noiseless_launches_give_a_finite_answer() -> None:
    """Launches that agree to the last digit are judged without dividing by zero."""
    found = judge(launches(0.02, 6, sd=0.0), POLICY)
    assert found.verdict is Verdict.WIN
    assert found.low == pytest.approx(0.02, abs=1e-6)


def test_overrun_budget_leaves_no_error_to_spend() -> None:
    """A launch after the budget is over cannot turn a duel, and no infinite number is reported."""
    before = [LaunchEstimate(0.01 + 0.008 * PATTERN[i], 5.0) for i in range(4)]
    assert judge(before, POLICY, budget_s=20).verdict is Verdict.INCONCLUSIVE
    found = judge(before + [LaunchEstimate(0.012, 5.0)] * 20, POLICY, budget_s=20, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [one.code for one in found.cautions] == ["noise-missing"]
    assert found.detectable_at_budget == found.detectable
    reported = (found.low, found.high, found.bound_low, found.bound_high)
    assert all(one is not None and math.isfinite(one) for one in reported)


def test_noise_floor_raises_the_threshold() -> None:
    """An effect that a session of this class can show by itself is no win."""
    floor = replace(NOISE, effect=math.log1p(0.018))
    found = judge(launches(0.02), POLICY, noise=floor, today=DAY, budget_spent=True)
    assert found.threshold == pytest.approx(0.018)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.noise is NoiseStatus.USED


def test_noise_above_the_margin_forbids_no_change() -> None:
    """Where sessions are off by more than the margin, absence of a change cannot be shown."""
    floor = replace(NOISE, effect=math.log1p(0.012))
    found = judge(launches(0.0), POLICY, noise=floor, today=DAY, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "noise-above-margin" in [caution.code for caution in found.cautions]


def test_noise_as_large_as_the_margin_still_allows_no_change() -> None:
    """Only a larger one forbids it."""
    floor = replace(NOISE, effect=math.log1p(0.01))
    policy = replace(POLICY, margin=math.expm1(floor.effect))
    found = judge(launches(0.0, sd=0.004), policy, noise=floor, today=DAY, budget_spent=True)
    assert found.verdict is Verdict.NO_CHANGE
    assert found.cautions == ()


@pytest.mark.parametrize(
    ("noise", "today", "status", "code"),
    [
        (None, DAY, NoiseStatus.MISSING, "noise-missing"),
        (NOISE, DAY + dt.timedelta(days=91), NoiseStatus.STALE, "noise-stale"),
        (replace(NOISE, launch_sd=0.0005), DAY, NoiseStatus.CONTRADICTED, "noise-contradicted"),
    ],
)
def test_doubts_about_the_calibration_are_said(
    noise: NoiseFloor | None, today: dt.date, status: NoiseStatus, code: str
) -> None:
    """Missing, stale and contradicted calibrations are named, with a remedy, and none steadies the duel."""
    found = judge(launches(0.004, 4), POLICY, noise=noise, today=today)
    assert found.noise is status
    assert [(c.code, bool(c.remedy)) for c in found.cautions] == [(code, True)]
    assert found.bound_low == judge(launches(0.004, 4), POLICY).bound_low


def test_two_launches_can_contradict_the_calibration() -> None:
    """Which lie far apart; one cannot."""
    apart = [LaunchEstimate(0.0, 5.0), LaunchEstimate(0.02, 5.0)]
    found = [judge(apart[:n], POLICY, noise=NOISE).noise for n in (1, 2)]
    assert found == [NoiseStatus.USED, NoiseStatus.CONTRADICTED]


def test_a_calibration_is_used_until_it_is_too_old() -> None:
    """On its ninetieth day it still is."""
    old = DAY + dt.timedelta(days=POLICY.stale_after_days)
    assert judge(launches(0.004, 4, sd=0.004), POLICY, noise=NOISE, today=old).noise is NoiseStatus.USED


def test_calibration_steadies_launches_that_agree_by_luck() -> None:
    """Three launches within 0.02 % of each other do not win on a class known to scatter by 1 %."""
    lucky = [LaunchEstimate(math.log1p(0.0085 + d), 5.0) for d in (0.0, 1e-4, -1e-4)]
    noise = replace(NOISE, launch_sd=0.01)
    assert judge(lucky, POLICY, noise=noise, today=DAY).verdict is Verdict.INCONCLUSIVE
    assert judge(lucky, POLICY).verdict is Verdict.WIN


def test_blocks_steady_launches_that_agree_by_luck() -> None:
    """The same launches do not win when their own blocks scatter too much for such agreement."""
    lucky = [LaunchEstimate(math.log1p(0.0085 + d), 5.0, se=0.006) for d in (0.0, 1e-4, -1e-4)]
    assert judge(lucky, POLICY).verdict is Verdict.INCONCLUSIVE
    assert judge([replace(lucky[0], se=None), *lucky[1:]], POLICY).verdict is Verdict.WIN


@pytest.mark.parametrize(("sign", "verdict"), [(1.0, Verdict.WIN), (-1.0, Verdict.LOSS)])
def test_sessions_must_agree_on_the_sign(sign: float, verdict: Verdict) -> None:
    """A win or a loss carried by one session against another is none; launches of one session may differ."""
    duel = [replace(one, log_ratio=sign * one.log_ratio) for one in launches(0.05, 12, sd=0.001)]
    duel.insert(6, LaunchEstimate(sign * -0.001, 5.0, session=1))
    found = judge(duel, POLICY, budget_s=65, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "sessions-disagree" in [caution.code for caution in found.cautions]
    for sessions in ([0] * 13, [0] * 6 + [1] * 7):
        agreeing = [replace(one, session=session) for one, session in zip(duel, sessions, strict=True)]
        assert judge(agreeing, POLICY, budget_s=65, budget_spent=True).verdict is verdict


def test_what_more_measuring_would_take_is_said_only_where_it_is_known() -> None:
    """Not where something was shown already, nor where no number of launches would show it."""
    assert judge(launches(0.02), POLICY, budget_spent=True).needed_s is None
    near = judge(launches(0.0075), POLICY, budget_spent=True)
    assert near.verdict is Verdict.INCONCLUSIVE
    assert near.needed_s is not None
    assert near.needed_s % 5.0 == 0.0
    far = judge(launches(0.0075, sd=0.5), POLICY, budget_spent=True)
    assert (far.verdict, far.needed_s) == (Verdict.INCONCLUSIVE, None)


def test_a_session_is_judged_at_one_look_with_the_error_of_a_reported_interval() -> None:
    """All of it on one side; a single launch has its own effect, and none has none."""
    own = launches(0.02, 5)
    one_look = replace(POLICY, min_launches=5, alpha=2 * POLICY.reported, reported=2 * POLICY.reported)
    assert judge_session(own, POLICY) == judge(own, one_look, budget_spent=True)
    assert judge_session(own, replace(POLICY, shares=3)) == judge_session(own, POLICY)
    assert judge_session(launches(0.5, 2, sd=0.0), POLICY).verdict is Verdict.WIN
    alone = judge_session(own[:1], POLICY)
    assert (alone.verdict, alone.launches) == (Verdict.INCONCLUSIVE, 1)
    assert alone.effect == pytest.approx(math.expm1(own[0].log_ratio))
    assert (judge_session((), POLICY).effect, judge_session((), POLICY).launches) == (None, 0)


def test_sessions_add_their_spread_by_the_squares_of_their_shares() -> None:
    """Two of four launches each add half of it, which launches do not average out."""
    logs = [1e-3 * (-1) ** i for i in range(8)]
    own = [LaunchEstimate(one, 5.0, session=i // 4) for i, one in enumerate(logs)]
    found = judge(own, replace(POLICY, session_sd=0.01), budget_spent=True)
    half = float(stdtrit(7, 0.975)) * math.sqrt(float(np.var(logs, ddof=1)) / 8 + 0.01**2 / 2)
    assert (found.low, found.high) == pytest.approx((math.expm1(-half), math.expm1(half)))


def test_a_win_repeats_where_each_session_wins_by_itself() -> None:
    """Twelve launches win together; the three of a second session must, too."""
    first = launches(0.02, 9, sd=0.004)
    for late, repeats in ((0.02, True), (0.01, False)):
        second = [replace(one, session=1) for one in launches(late, 3, sd=0.004)]
        assert judge([*first, *second], POLICY, budget_spent=True).verdict is Verdict.WIN
        assert win_repeats([*first, *second], POLICY) is repeats


def test_halves_that_disagree_say_nothing() -> None:
    """Six launches around 3 % and six around 1.8 %, neighbours far apart: a win of which it is not known of what."""
    halves = [LaunchEstimate(mean + sign * 0.005, 5.0) for mean in (0.03, 0.018) for sign in (1, -1, 1, -1, 1, -1)]
    found = judge(halves, POLICY, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "halves-disagree" in [one.code for one in found.cautions]
    assert "disagree" in found.reason
    mixed = [halves[i] for i in (0, 7, 2, 9, 4, 11, 1, 6, 3, 8, 5, 10)]
    assert judge(mixed, POLICY, budget_spent=True).verdict is Verdict.WIN


def test_no_change_needs_no_share_of_the_error() -> None:
    """An unchanged workload of six is shown to be so when it would be alone, at 95 %; the claims share."""
    flat = Duel(tuple(launches(0.0, 12, sd=0.012)), budget_s=60, budget_spent=True)
    alone = judge_many({"a": flat}, POLICY)["a"]
    family = judge_many({f"b{i}": flat for i in range(6)}, POLICY)
    assert alone.verdict is Verdict.NO_CHANGE
    assert {one.verdict for one in family.values()} == {Verdict.NO_CHANGE}
    assert {one.level for one in family.values()} == {alone.level}
    assert judge(flat.launches, replace(POLICY, alpha=POLICY.alpha / 6), budget_s=60).verdict is Verdict.INCONCLUSIVE


def test_drifting_launches_are_cautioned() -> None:
    """Launches that drift are told apart from launches that scatter, and judged with a wider interval."""
    drift = [LaunchEstimate(0.001 * i, 5.0) for i in range(12)]
    order = (0, 7, 3, 10, 1, 8, 5, 11, 2, 9, 4, 6)
    mixed = [LaunchEstimate(0.001 * i, 5.0) for i in order]
    drifting, scattered = judge(drift, POLICY, budget_spent=True), judge(mixed, POLICY, budget_spent=True)
    assert "launches-dependent" in [caution.code for caution in drifting.cautions]
    assert "launches-dependent" not in [caution.code for caution in scattered.cautions]
    assert (drifting.high or 0) - (drifting.low or 0) > 1.5 * ((scattered.high or 0) - (scattered.low or 0))


def test_what_looks_like_a_small_loss_is_not_cleared_by_a_wide_margin() -> None:
    """A suspicion is refuted by an interval that holds zero, or by one within the usual margin."""
    wide = replace(POLICY, margin=0.05)
    small = launches(-0.015, 6, sd=0.012)
    assert judge(small, wide).verdict is Verdict.NO_CHANGE
    found = judge(small, replace(wide, suspicious=True))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [one.code for one in found.cautions] == ["noise-missing"]
    for none in (launches(0.0, 6, sd=0.02), launches(-0.004, 6, sd=0.001)):
        assert judge(none, replace(wide, suspicious=True)).verdict is Verdict.NO_CHANGE


def test_whole_times_that_leave_room_hold_no_change_back() -> None:
    """An arm that is slow now and then is slower, and a typical token does not show it."""
    typical = launches(0.0, 8, sd=0.001)
    assert judge(typical, POLICY).verdict is Verdict.NO_CHANGE
    slow = [replace(one, whole=one.log_ratio - 0.06) for one in typical]
    found = judge(slow, POLICY, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [one.code for one in found.cautions if one.code == "rare"] == ["rare"]
    assert "slow now and then" in found.reason
    shown = [replace(one, whole=one.log_ratio - 0.02) for one in typical]
    assert judge(shown, POLICY).verdict is Verdict.INCONCLUSIVE
    open_ = [replace(one, whole=one.log_ratio - 0.02 + 0.03 * x) for one, x in zip(typical, PATTERN, strict=False)]
    assert judge(open_, POLICY).verdict is Verdict.NO_CHANGE
    wide = replace(POLICY, margin=0.1)
    assert judge(slow, wide).verdict is Verdict.NO_CHANGE
    unknown = [slow[0], *typical[1:]]
    assert judge(unknown, POLICY).verdict is Verdict.NO_CHANGE


@pytest.mark.parametrize(("effect", "verdict"), [(-0.3, Verdict.LOSS), (0.4, Verdict.WIN), (0.0, Verdict.NO_CHANGE)])
def test_launches_beyond_the_budget_do_not_unsay_what_was_shown(effect: float, verdict: Verdict) -> None:
    """A second session is owed its launches even where slow ones have used the budget up."""
    seconds = (3.3, 3.3, 3.3, 6.5, 4.1, 5.4)
    found = [replace(one, seconds=s) for one, s in zip(launches(effect, 6, sd=0.003), seconds, strict=True)]
    assert sum(seconds[:5]) > 20
    judged = judge(found, POLICY, budget_s=20, budget_spent=True)
    assert judged.verdict is verdict
    assert judged.launches == 6
    assert judged.bound_low == judge(found[:5], POLICY, budget_s=20).bound_low


def test_launches_beyond_the_budget_can_speak_against_what_was_shown() -> None:
    """They are not looked at again for a claim, and a claim that they do not bear out is none."""
    shown = [LaunchEstimate(0.02 + 0.001 * x, 7.0) for x in PATTERN[:3]]
    assert judge(shown, POLICY, budget_s=20).verdict is Verdict.WIN
    late = [LaunchEstimate(-0.05 + 0.001 * x, 7.0, session=1) for x in PATTERN[:3]]
    found = judge([*shown, *late], POLICY, budget_s=20, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "do not bear out" in found.reason
    assert found.low is not None
    assert found.high is not None
    assert found.low <= (found.effect or 0) <= found.high
    assert (found.bound_low or 0) <= found.low
    assert found.high <= (found.bound_high or 0)


def test_a_session_beyond_the_budget_can_disagree() -> None:
    """All launches together still win, and the session that the budget did not hold shows a loss."""
    shown = [LaunchEstimate(0.1 + 0.001 * x, 7.0) for x in PATTERN[:6]]
    late = LaunchEstimate(-0.001, 7.0, session=1)
    assert judge([*shown, replace(late, session=0)], POLICY, budget_s=42, budget_spent=True).verdict is Verdict.WIN
    found = judge([*shown, late], POLICY, budget_s=42, budget_spent=True)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [one.code for one in found.cautions] == ["noise-missing", "sessions-disagree"]


def test_judging_twice_gives_the_same() -> None:
    """A recorded duel judged again gives an equal judgement."""
    assert judge(launches(0.004), POLICY, noise=NOISE) == judge(launches(0.004), POLICY, noise=NOISE)


def test_family_of_unchanged_workloads_is_held_to_one_error() -> None:
    """What wins alone may not win as one of six: the family shares the error."""
    borderline = Duel(tuple(launches(0.018, 6)), budget_s=30, budget_spent=True)
    flat = Duel(tuple(launches(0.0075, 6, sd=0.012)), budget_s=30, budget_spent=True)
    alone = judge_many({"a": borderline}, POLICY)
    family = judge_many({"a": borderline} | {f"b{i}": flat for i in range(5)}, POLICY)
    assert alone["a"].verdict is Verdict.WIN
    assert family["a"].verdict is Verdict.INCONCLUSIVE
    assert family["a"].level == pytest.approx(1 - 0.05 / 6)
    assert list(family) == ["a", "b0", "b1", "b2", "b3", "b4"]


def test_a_look_is_cheap() -> None:
    """Judging 36 launches that nobody judged before takes under 50 ms of processor time each."""
    rng = np.random.default_rng(9)
    duel = [LaunchEstimate(float(rng.normal(0.006, 0.01)), float(rng.uniform(4, 6))) for _ in range(36)]
    judge(duel[:3], POLICY, budget_s=180)
    start = time.process_time()
    for n in range(3, 37):
        judge(duel[:n], POLICY, budget_s=180)
    assert (time.process_time() - start) / 34 < 0.05


def test_blocks_to_verdict_end_to_end() -> None:
    """From raw blocks with contention to a win of the right size."""
    rng, duel = np.random.default_rng(7), []
    for _ in range(10):
        base, cand = 0.02 * rng.lognormal(0, 0.02, 20), 0.02 / 1.02 * rng.lognormal(0, 0.02, 20)
        base[rng.random(20) < 0.1] *= 1.5
        duel.append(estimate_launch(base.tolist(), cand.tolist(), seconds=5))
    found = judge(duel, POLICY, budget_s=50)
    assert found.verdict is Verdict.WIN
    assert (found.low or 0) < 0.02 < (found.high or 0)


def test_broken_launch_never_reaches_the_judge() -> None:
    """A launch that is not a number is refused where it is made."""
    with pytest.raises(InvalidError):
        judge([LaunchEstimate(math.nan, 5.0)], POLICY)
