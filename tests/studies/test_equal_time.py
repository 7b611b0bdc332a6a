import numpy as np
import pytest

from gemma3n_perf.duel.validation_record import PowerDuel, PowerLaunch
from studies import equal_time
from studies.external_rules import RULES
from studies.validation import OURS, Trial


def measured(number: int, *, planted: float = 0.0, drift: float = 0.0, launches: int = 12) -> Trial:
    """Return a round's duel on a machine that slows by ``drift`` from its first launch to its last."""
    rng = np.random.default_rng(number)
    truth = 1 / (1 + planted) - 1
    base, cand = (1.0, 1 + planted) if planted >= 0 else (1 / (1 + planted), 1.0)
    listed = []
    for place in range(launches):
        level = 0.02 * (1 + drift * place / launches)
        arms = (level * factor * (1 + 0.004 * rng.standard_normal(20)) for factor in (base, cand))
        listed.append(PowerLaunch(4.0, *(tuple(arm) for arm in arms)))
    return Trial.of(PowerDuel("2026-07-01", None, number, planted, truth, 60.0, "win", 0.0, -1.0, 1.0, tuple(listed)))


def test_a_machine_that_drifts_deceives_who_measures_one_side_after_the_other() -> None:
    """Interleaved pairs do not see it, and neither does this suite."""
    rows = {one.rule: one for one in equal_time.compared([measured(number, drift=0.06) for number in range(8)])}
    assert rows[OURS].wrong_at_0.count == 0
    assert rows[equal_time.PAIRS].wrong_at_0.count <= 1
    assert rows["mean, Welch 0.05"].wrong_at_0.count == 8
    assert rows["mean, Welch 0.05"].wrong[0.02].count == 8
    assert rows[OURS].right[0.02].share == 1


def test_on_a_calm_machine_every_rule_sees_what_it_can() -> None:
    """10 % by all of them, in both directions but for the one that knows only one."""
    rows = equal_time.compared([measured(number) for number in range(6)])
    assert [one.rule for one in rows] == [OURS, equal_time.PAIRS, *RULES]
    assert [one.right[0.1].count for one in rows if one.rule != "pytest-benchmark mean:5%"].count(12) >= 6
    one_sided = next(one for one in rows if one.rule == "pytest-benchmark mean:5%")
    assert one_sided.right[0.1].count == 6


@pytest.mark.parametrize("planted", [0.05, -0.05])
def test_what_was_planted_is_taken_out_first(planted: float) -> None:
    """A round of planted duels answers like one of A/A."""
    (found,) = equal_time.sequences([measured(1, planted=planted)])
    assert np.mean([one.log_ratio for one in found.launches]) == pytest.approx(0.0, abs=0.003)
    assert np.mean([base for base, _ in found.processes]) == pytest.approx(0.02, rel=0.003)
    assert np.mean([cand for _, cand in found.processes]) == pytest.approx(0.02, rel=0.003)
    assert set(equal_time.calls(found, 0.0).values()) == {"same"} or equal_time.calls(found, 0.0)[OURS] == "same"


def test_a_round_counts_once() -> None:
    """By its longest duel; one of too few launches by none."""
    assert len(equal_time.sequences([measured(1), measured(1, launches=8), measured(2), measured(3, launches=5)])) == 2
    (right,) = {one.right[0.02].worth for one in equal_time.compared([measured(1), measured(2)])}
    assert right == 2
