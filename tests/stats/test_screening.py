"""The screen suspects by the spread between sessions and says when it cannot judge."""

import math

import pytest

from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.screen import Spread
from gemma3n_perf.stats.screening import Sessions, judge_screen, judge_screens
from gemma3n_perf.stats.verdicts import NoiseStatus, Verdict

QUIET = (0.0200, 0.0201, 0.0199, 0.0200, 0.0202)
POLICY = Policy()


def test_planted_slowdown_is_a_loss() -> None:
    """25 % longer per token against five quiet sessions is -20 %, a suspicion to confirm by a duel."""
    found = judge_screen(0.0200 * 1.25, QUIET, POLICY)
    assert (found.verdict, found.exit_code) == (Verdict.LOSS, 1)
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
    slow = Sessions(0.0205, QUIET)
    assert judge_screens({"a": slow}, POLICY)["a"].verdict is Verdict.LOSS
    noisy = Sessions(0.02, (0.018, 0.022, 0.02))
    family = judge_screens({"a": slow, "b": noisy, "c": noisy, "d": noisy}, POLICY)
    assert family["a"].verdict is Verdict.INCONCLUSIVE
    assert family["a"].level == pytest.approx(1 - 0.05 / 4)
