from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gemma3n_perf.bench.comparison import Compared
from gemma3n_perf.bench.confirmation import UNCONFIRMED, ScreenOutcome, baseline_arm, settle
from gemma3n_perf.errors import ArmUnavailableError, MachineBusyError, PerfError, UsageError
from gemma3n_perf.hardware.types import Stack
from gemma3n_perf.stats.verdicts import Judgement, Verdict
from tests.duel.arena import Arena, noisy
from tests.duel.duels import FakeBuilder, machine, opened
from tests.fakes import COMMIT, STACK, WORKLOAD, measurement

OTHER = "nano/text/pp140-tg64"
SUSPECT = Compared(measurement(WORKLOAD), Judgement(Verdict.LOSS, "suspected", -0.1, -0.12, -0.08), "committed 5")
CLEAR = Compared(measurement(OTHER), Judgement(Verdict.NO_CHANGE, "same", 0.0, -0.001, 0.001), "committed 5")


def settled(
    arena: Arena, tmp_path: Path, then: Stack = STACK, raises: PerfError | None = None, **options: object
) -> ScreenOutcome:
    """Look into one suspect beside one that is clear."""
    here = machine(arena, tmp_path, raises=raises)
    return settle((SUSPECT, CLEAR), then, partial(opened, here), **options)  # type: ignore[arg-type]


def test_the_baselines_stack_is_rebuilt_where_it_differs() -> None:
    """Its commit always; versions and knobs only where they are not those of here."""
    assert baseline_arm(STACK, STACK) == f"ref:{COMMIT}"
    then = replace(STACK, mlx="0.32.3", mlx_vlm="0.7.9", knobs={"MLX_A": "1"})
    assert baseline_arm(then, STACK) == f"ref:{COMMIT}+mlx==0.32.3+mlx-vlm==0.7.9+env:MLX_A=1"


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (replace(STACK, commit=None), STACK),
        (replace(STACK, dirty=True), STACK),
        (STACK, replace(STACK, knobs={"MLX_A": "1"})),
    ],
)
def test_what_cannot_be_rebuilt_is_unavailable(then: Stack, now: Stack) -> None:
    """Uncommitted changes, and a knob that cannot be unset."""
    with pytest.raises(ArmUnavailableError):
        baseline_arm(then, now)


def test_the_planted_slowdown_goes_into_the_candidate(tmp_path: Path) -> None:
    """So that a smoke test rings through to the end."""
    here = machine(Arena(noisy(launch_sd=1e-4, block_sd=1e-4)), tmp_path)
    found = settle((SUSPECT,), STACK, partial(opened, here), planted=0.25)
    assert isinstance(here.builder, FakeBuilder)
    assert here.builder.asked == [(f"ref:{COMMIT}", "here+plant:+25%", None)]
    assert found.compared[0].judgement.verdict is Verdict.LOSS
    assert found.notes[WORKLOAD].startswith("confirmed by a duel: -20.0")


def test_a_confirmed_loss_stays_a_loss(tmp_path: Path) -> None:
    """Its line says what the duel saw, and what was clear is left alone."""
    found = settled(Arena(noisy(-0.1)), tmp_path)
    assert [one.judgement.verdict for one in found.compared] == [Verdict.LOSS, Verdict.NO_CHANGE]
    assert found.compared[0].judgement.effect == SUSPECT.judgement.effect
    assert found.compared[1] is CLEAR
    assert found.notes[WORKLOAD].startswith("confirmed by a duel")
    assert not found.unresolved


def test_a_suspicion_that_a_duel_refutes_fails_nothing(tmp_path: Path) -> None:
    """The screen compares across days; the duel decides."""
    found = settled(Arena(noisy()), tmp_path)
    assert found.compared[0].judgement.verdict is Verdict.NO_CHANGE
    assert found.notes[WORKLOAD].startswith("not confirmed: a duel says no change of 3.3 % or more")


@pytest.mark.parametrize(
    "raises",
    [UsageError("ref:x is no commit of this clone", remedy="git fetch"), ArmUnavailableError("mlx==1 is offline")],
)
def test_a_baseline_that_cannot_be_rebuilt_leaves_it_unanswered(tmp_path: Path, raises: PerfError) -> None:
    """Neither proved nor cleared: not-measured, with the reason, and never a crash."""
    found = settled(Arena(), tmp_path, raises=raises)
    assert found.compared[0].judgement.verdict is Verdict.NOT_MEASURED
    assert raises.found in found.notes[WORKLOAD]
    assert found.unresolved


def test_a_busy_machine_leaves_it_unanswered(tmp_path: Path) -> None:
    """Another measurement may have begun since."""

    def busy() -> object:
        raise MachineBusyError("process 7 measures")

    found = settle((SUSPECT,), STACK, busy)  # type: ignore[arg-type]
    assert found.unresolved
    assert "process 7 measures" in found.notes[WORKLOAD]


def test_without_confirmation_the_suspicion_stands_and_says_so(tmp_path: Path) -> None:
    """It still fails the run, as a suspicion of the screen."""
    arena = Arena()
    found = settled(arena, tmp_path, enabled=False)
    assert found.compared == (SUSPECT, CLEAR)
    assert found.notes == {WORKLOAD: UNCONFIRMED}
    assert arena.workers == []


def test_without_a_suspicion_nothing_is_duelled(tmp_path: Path) -> None:
    """And nothing is said."""
    arena = Arena()
    found = settle((CLEAR,), STACK, partial(opened, machine(arena, tmp_path)))
    assert found == ScreenOutcome((CLEAR,))
    assert arena.workers == []


def unsettled(effect: float, workload: str = WORKLOAD, *, sd: float = 0.1) -> Compared:
    """Return a screen that five sessions ``sd`` apart leave open."""
    low, high = effect - 3 * sd, effect + 3 * sd
    judgement = Judgement(Verdict.INCONCLUSIVE, "open", effect, low, high, launches=5, launch_sd=sd)
    return Compared(measurement(workload), judgement, "committed 5")


def test_the_likeliest_of_what_the_screen_left_open_is_looked_into(tmp_path: Path) -> None:
    """Where sessions differ by 10 %, a fifth off may hide behind them; one duel, of the slowest, tells."""
    arena = Arena(noisy(-0.2))
    compared = (unsettled(-0.1), unsettled(-0.2, OTHER))
    found = settle(compared, STACK, partial(opened, machine(arena, tmp_path)))
    assert [one.judgement.verdict for one in found.compared] == [Verdict.INCONCLUSIVE, Verdict.LOSS]
    assert found.notes[OTHER].startswith("confirmed by a duel")
    assert found.notes.keys() == {OTHER}


@pytest.mark.parametrize("effect", [-0.015, 0.0, 0.06])
def test_what_the_spread_of_sessions_explains_is_not_looked_into(tmp_path: Path, effect: float) -> None:
    """Half a standard error off is what unchanged code looks like, where no large loss can hide behind it."""
    arena = Arena()
    assert settle((unsettled(effect, sd=0.025),), STACK, partial(opened, machine(arena, tmp_path))).notes == {}
    assert arena.workers == []


@pytest.mark.parametrize(
    ("effect", "verdict", "said"),
    [(-0.2, Verdict.LOSS, "confirmed by a duel"), (0.0, Verdict.NO_CHANGE, "a duel says no change of 5.0 % or more")],
)
def test_a_loss_hides_behind_a_machine_that_is_faster_today(
    tmp_path: Path, effect: float, verdict: Verdict, said: str
) -> None:
    """An interval that holds a loss of 10 % is looked into whatever its middle; nothing near it is soon shown."""
    arena = Arena(noisy(effect))
    found = settle((unsettled(0.02),), STACK, partial(opened, machine(arena, tmp_path)))
    assert [one.judgement.verdict for one in found.compared] == [verdict]
    assert found.notes[WORKLOAD].startswith(said)
    assert found.notes[WORKLOAD].endswith("3 launches")


def test_an_open_screen_stays_open_where_no_duel_can_be_had(tmp_path: Path) -> None:
    """The screen did not accuse, so an arm that cannot be built is no failure; it is said."""
    here = machine(Arena(), tmp_path, raises=ArmUnavailableError("mlx==1 is offline"))
    found = settle((unsettled(-0.2),), STACK, partial(opened, here))
    assert found.compared == (unsettled(-0.2),)
    assert not found.unresolved
    assert "mlx==1 is offline" in found.notes[WORKLOAD]
