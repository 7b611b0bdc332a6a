"""The screen suspects by the spread between sessions and says when it cannot judge."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gemma3n_perf.errors import InvalidError
from gemma3n_perf.stats.multiple import step_down
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.screen import Spread, combined, judge_screen, pooled_spread, suspects
from gemma3n_perf.stats.verdicts import Judgement, NoiseStatus, Verdict

QUIET = (0.0200, 0.0201, 0.0199, 0.0200, 0.0202)
POLICY = Policy()


def test_planted_slowdown_is_a_loss() -> None:
    """25 % longer per token against five quiet sessions is -20 % of throughput, a suspicion to confirm by a duel."""
    found = judge_screen(0.0200 * 1.25, QUIET, POLICY)
    assert (found.verdict, found.verdict.exit_code) == (Verdict.LOSS, 1)
    assert found.effect == pytest.approx(-0.2, abs=0.002)
    assert found.high is not None
    assert found.high < -0.005
    assert "confirm by a duel" in found.reason


def test_faster_session_is_a_win() -> None:
    """The mirror image is a win."""
    assert judge_screen(0.0200 / 1.25, QUIET, POLICY).verdict is Verdict.WIN


def test_very_quiet_sessions_can_show_no_change() -> None:
    """Sessions within 0.1 % of each other show that nothing changed by a percent."""
    sessions = tuple(0.02 * (1 + d) for d in (0.0, 0.001, -0.001, 0.0005, -0.0005))
    assert judge_screen(0.02, sessions, POLICY).verdict is Verdict.NO_CHANGE


def test_change_below_the_minimum_effect_is_no_loss() -> None:
    """0.3 % slower against sessions that agree to 0.01 % is certain, and too little to count."""
    sessions = tuple(0.02 * (1 + d) for d in (0.0, 1e-4, -1e-4, 5e-5, -5e-5))
    found = judge_screen(0.02 * 1.003, sessions, POLICY)
    assert (found.high or 0) < -0.001
    assert found.verdict is Verdict.NO_CHANGE


def test_one_session_cannot_judge() -> None:
    """Even a halved speed is inconclusive against one session, with the reason and what to do."""
    found = judge_screen(0.04, (0.02,), POLICY)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.effect == pytest.approx(-0.5)
    assert (found.low, found.high) == (None, None)
    assert found.noise is NoiseStatus.MISSING
    assert "one stored session" in found.reason
    assert "store more sessions" in found.reason


def test_class_spread_lets_one_session_judge() -> None:
    """With the class's pooled spread of 2 %, a halved speed is a loss even against one session."""
    assert judge_screen(0.04, (0.02,), POLICY, spread=Spread(0.02, 12)).verdict is Verdict.LOSS


def test_noisy_sessions_name_what_they_could_tell() -> None:
    """Sessions 7 % apart cannot tell 5 %, and the reason names the smallest change they could."""
    sessions = tuple(0.02 * math.exp(0.07 * d) for d in (1.0, -1.0, 0.4, -0.4, 0.0))
    found = judge_screen(0.021, sessions, POLICY)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.detectable is not None
    assert 0.15 < found.detectable < 0.35
    assert f"less than {100 * found.detectable:.1f} %" in found.reason


def test_no_session_is_not_measured() -> None:
    """A workload without a baseline never passes silently."""
    assert judge_screen(0.02, (), POLICY).verdict is Verdict.NOT_MEASURED


def test_family_shares_the_error() -> None:
    """A change that one workload alone would show is not shown as one of four."""
    noisy = (0.02, (0.018, 0.022, 0.02))
    sessions = {"a": (0.0205, QUIET), "b": noisy, "c": noisy, "d": noisy}

    def one(name: str, alpha: float) -> Judgement:
        return judge_screen(*sessions[name], replace(POLICY, alpha=alpha))

    assert step_down(["a"], POLICY.alpha, one)["a"].verdict is Verdict.LOSS
    family = step_down(list(sessions), POLICY.alpha, one)
    assert family["a"].verdict is Verdict.INCONCLUSIVE
    assert family["a"].level == pytest.approx(1 - 0.05 / 4)


@pytest.mark.parametrize("k", [2, 5, 9])
def test_interval_holds_an_unchanged_session(k: int) -> None:
    """Over machines with 7 % between sessions, 95 % of intervals of an unchanged session hold zero."""
    logs = np.random.default_rng(1).normal(math.log(0.02), 0.07, (3000, k + 1))
    found = [judge_screen(row[0], row[1:].tolist(), POLICY) for row in np.exp(logs)]
    covered = np.mean([s.low <= 0 <= s.high for s in found if s.low is not None and s.high is not None])
    assert 0.935 < covered < 0.965


def test_the_class_lends_its_spread() -> None:
    """One session with the class's pooled spread has an interval: t(12) * 0.05 * sqrt(2) wide each way, in logs."""
    found = judge_screen(0.02, [0.02], POLICY, spread=Spread(0.05, 12))
    assert math.log1p(found.high or 0) == pytest.approx(2.178813 * 0.05 * math.sqrt(2), rel=1e-5)
    assert math.log1p(found.low or 0) == pytest.approx(-math.log1p(found.high or 0))


def test_pooled_spread_never_hides_what_the_sessions_show() -> None:
    """A workload noisier than the class keeps its own spread; far noisier, its own degrees of freedom too."""
    own = Spread(0.02, 3)
    assert combined(own, Spread(0.04, 20)) == Spread(0.04, 20)
    assert combined(own, Spread(0.018, 20)) == Spread(0.02, 20)
    assert combined(own, Spread(0.002, 20)) == own
    assert combined(own, Spread(0.04, 3)) == own
    assert combined(own, None) == combined(None, own) == own
    sessions = [0.02, 0.021, 0.0195, 0.0205]
    sd = float(np.std(np.log(sessions), ddof=1))
    assert judge_screen(0.02, sessions, POLICY, spread=Spread(0.9 * sd, 20)).launch_sd == pytest.approx(sd)


def test_pooling_needs_two_sessions_of_something() -> None:
    """Workloads with one session add nothing to the pool."""
    assert pooled_spread([[0.02], [0.03]]) is None
    found = pooled_spread([[0.02, 0.02 * math.exp(0.1)], [0.03], [1.0, math.exp(0.1), math.exp(0.2)]])
    assert found is not None
    assert found.sd == pytest.approx(math.sqrt((0.005 + 0.02) / 3))
    assert found.df == 3


def test_detectable_change_is_detected() -> None:
    """A slowdown of the stated size leaves zero outside the interval about four times in five."""
    rng, hits = np.random.default_rng(2), []
    for _ in range(3000):
        base = rng.normal(0, 0.05, 6)
        found = judge_screen(math.exp(rng.normal(0.05 * 3.9, 0.05)), np.exp(base).tolist(), POLICY)
        hits.append(found.high is not None and found.high < 0)
    even = np.exp(0.05 * np.array([-1, 1, -1, 1, -1, 1]) * math.sqrt(5 / 6)).tolist()
    limit = math.log1p(judge_screen(1.0, even, POLICY).detectable or 0)
    assert limit == pytest.approx(0.05 * (2.570582 + 0.919544) * math.sqrt(7 / 6), rel=1e-5)
    assert 0.78 < np.mean(hits) < 0.86


def test_impossible_times_are_refused() -> None:
    """Of today and of the stored sessions alike."""
    with pytest.raises(InvalidError, match=r"session time of 0\.0"):
        judge_screen(0.0, [0.02, 0.02], POLICY)
    with pytest.raises(InvalidError, match=r"session time of -0\.02"):
        judge_screen(0.02, [0.02, -0.02], POLICY)


def test_a_duel_looks_into_losses_and_into_what_seems_slow() -> None:
    """Of the open ones, into what looks slower than four sessions in five would, and into what holds a loss of 10 %."""
    spread = Spread(0.02, 50)

    def z(slower: float, spread: Spread = spread) -> float | None:
        return suspects(judge_screen(0.02 * math.exp(slower), (0.02,) * 4, POLICY, spread=spread), POLICY)

    error = 0.02 * math.sqrt(1.25)
    assert z(0.2) == pytest.approx(-0.2 / error)
    assert z(0.9 * error) == pytest.approx(-0.9)
    assert z(0.8 * error) is None
    assert z(0.0, Spread(0.055, 50)) == pytest.approx(0.0, abs=1e-9)
    assert z(0.0, Spread(0.035, 50)) is None
    assert z(-0.2) is None
    assert suspects(judge_screen(0.04, (0.02,), POLICY), POLICY) is None


def test_slow_by_less_than_the_minimum_effect_is_not_looked_into() -> None:
    """However many standard errors that is."""
    quiet = judge_screen(0.02 * 1.004, (0.02,) * 4, replace(POLICY, alpha=1e-9), spread=Spread(0.002, 50))
    assert quiet.verdict is Verdict.INCONCLUSIVE
    assert suspects(quiet, POLICY) is None
