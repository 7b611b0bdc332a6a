import datetime as dt
import random
from dataclasses import replace

import pytest

from gemma3n_perf.errors import UsageError
from gemma3n_perf.gate.change import parts
from gemma3n_perf.gate.facts import Checked, Dispatch, EvidenceFacts, Objection, Parity, Ruling, WorkloadFacts
from gemma3n_perf.gate.policy import ClassPolicy, GatePolicy
from gemma3n_perf.gate.rule import best, goals, rule
from gemma3n_perf.stats.estimates import LaunchEstimate
from gemma3n_perf.stats.judge import judge_session
from gemma3n_perf.stats.policy import Policy
from gemma3n_perf.stats.spread import noise_floor
from gemma3n_perf.stats.verdicts import Verdict

TODAY = dt.date(2026, 7, 1)
A, B = "class-a", "class-b"
WORK = "nano/text/pp40-tg64"
POLICY = GatePolicy(required=(A, B), classes={A: ClassPolicy((WORK,)), B: ClassPolicy((WORK,))})


def duel(
    effects: tuple[float, ...], workload: str = WORK, *, each: int = 4, sd: float = 0.003, seed: int = 2
) -> WorkloadFacts:
    """Return a duel of sessions with such effects, in log units."""
    rng = random.Random(seed)
    launches = [
        LaunchEstimate(effect + rng.gauss(0.0, sd), 6.0, 0.001, session)
        for session, effect in enumerate(effects)
        for _ in range(each)
    ]
    return WorkloadFacts(workload, tuple(launches), 60.0)


def facts(fusion: str = "f", chip_class: str = A, *duels: WorkloadFacts, **changes: object) -> EvidenceFacts:
    """Return sound evidence, of a win of 5 % unless duels are given."""
    checked = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(True, True), 1.0, True)
    made = EvidenceFacts(
        f"{chip_class}/{fusion}.json",
        fusion,
        chip_class,
        TODAY,
        False,
        ("1", "1"),
        duels or (duel((0.05, 0.05)),),
        (checked,),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def ruled(*evidence: EvidenceFacts, policy: GatePolicy = POLICY) -> Ruling:
    """Rule on all fusions there is evidence of."""
    return rule(list(dict.fromkeys(one.fusion for one in evidence)), evidence, policy, today=TODAY)


def table(ruling: Ruling) -> list[str]:
    """The table's verdicts."""
    return [cell.word for cell in ruling.cells]


def test_a_win_everywhere_enters() -> None:
    """With its effect on each class."""
    found = ruled(facts(), facts("f", B))
    assert not found.verdicts
    assert found.exit_code == 0
    assert found.decisions[0].wins.keys() == {A, B}
    assert found.decisions[0].wins[A] == pytest.approx(0.051, abs=0.005)


@pytest.mark.parametrize(
    ("effects", "word", "code"),
    [
        ((-0.05, -0.05), "loss", 1),
        ((0.0, 0.0), "no-change", 1),
        ((0.05,), "not-measured", 4),
        ((0.08, 0.002), "inconclusive", 3),
    ],
)
def test_one_class_that_does_not_win_refuses(effects: tuple[float, ...], word: str, code: int) -> None:
    """By its own verdict and exit code."""
    found = ruled(facts(), facts("f", B, duel(effects)))
    assert (table(found), found.exit_code) == (["win", word], code)
    assert not found.decisions[0].wins
    assert found.decisions[0].reasons[0].found.startswith("f on class-b: ")


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ("invalid loss not-measured inconclusive", 5),
        ("loss not-measured inconclusive", 1),
        ("no-change inconclusive", 1),
        ("not-measured inconclusive", 4),
        ("inconclusive", 3),
        ("", 0),
    ],
)
def test_the_most_severe_refusal_decides(verdicts: str, code: int) -> None:
    """5 before 1 before 4 before 3, whatever came first."""
    reasons = tuple(Objection(Verdict(word), "", "") for word in reversed(verdicts.split()))
    decision = replace(ruled(facts()).decisions[0], reasons=reasons)
    ruling = Ruling((decision,), ())
    assert ruling.exit_code == code
    assert " ".join(ruling.verdicts) == verdicts


def test_a_win_that_whole_runs_do_not_bear_out_is_not_admitted() -> None:
    """What the duel leaves open, the gate does too; without the doubt the same launches are admitted."""
    policy = replace(POLICY, required=(A,))
    sound = duel((0.05, 0.05))
    assert ruled(facts("f", A, sound), policy=policy).decisions[0].admitted
    cell, *_ = ruled(facts("f", A, replace(sound, doubt="whole runs do not bear it out yet")), policy=policy).cells
    assert (cell.verdict, cell.reason) == (Verdict.INCONCLUSIVE, "whole runs do not bear it out yet")


def test_all_cells_are_one_family() -> None:
    """What is shown alone need not be shown among many: Holm over every cell of the run."""
    scattered = [LaunchEstimate(0.03 + offset, 6.0, 0.001, n) for n in (0, 1) for offset in (-0.009, 0.0, 0.009)]
    thin = facts("f", A, WorkloadFacts(WORK, tuple(scattered), 60.0))
    policy = replace(POLICY, required=(A,))
    noise = [facts(f"g{i}", A, duel((0.0, 0.0), each=3, sd=0.02, seed=i)) for i in range(60)]
    alone, among = ruled(thin, policy=policy).cells[0], ruled(thin, *noise, policy=policy).cells[0]
    assert (alone.verdict, among.verdict) == (Verdict.WIN, Verdict.INCONCLUSIVE)


def test_unchanged_fusions_hardly_ever_enter() -> None:
    """400 fusions that change nothing, on a class of 0.6 % between launches: Holm keeps each family's claims away."""
    one_class = replace(POLICY, required=(A,))
    entered = 0
    for seed in range(40):
        family = [facts(f"f{i}", A, duel((0.0, 0.0), sd=0.006, seed=97 * seed + i)) for i in range(10)]
        entered += sum(one.admitted for one in ruled(*family, policy=one_class).decisions)
    assert entered <= 1


def test_a_session_is_judged_by_itself_on_one_side() -> None:
    """Its only question is whether the win is there again."""
    launches = duel((0.02,)).launches
    once = judge_session(launches, Policy())
    assert once.verdict is Verdict.WIN
    assert once.level == pytest.approx(0.9)
    assert judge_session(launches[:1], Policy()).verdict is Verdict.INCONCLUSIVE
    assert judge_session((), Policy()).effect is None


def test_a_noise_floor_raises_the_threshold() -> None:
    """A win of 2 % is none on a class where the same code differs by 3 %."""
    floor = noise_floor([(0.03, 0.031), (-0.03, -0.029), (0.03, 0.03)], TODAY)
    small = facts("f", A, duel((0.02, 0.02)))
    policy = replace(POLICY, required=(A,))
    assert rule(["f"], [small], policy, today=TODAY).exit_code == 0
    assert rule(["f"], [small], policy, today=TODAY, noise={A: floor}).exit_code > 0


def test_a_duel_may_go_on_unless_it_says_otherwise() -> None:
    """Its budget is not spent."""
    assert not duel((0.0,)).spent


def test_a_broken_off_duel_is_not_judged_by_what_it_had() -> None:
    """It has the verdict it broke off with."""
    lost = replace(duel((0.05, 0.05)), failure=Objection(Verdict.INVALID, "tokens differ", "mend it"))
    found = ruled(facts(), facts("f", B, lost))
    assert (table(found), found.exit_code) == (["win", "invalid"], 5)


def test_every_objection_is_stated_and_the_worst_decides() -> None:
    """Stale and wrong is wrong, and both are said."""
    wrong = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(False, True, "step 3"), 1.0, True)
    old = facts("f", A, date=TODAY - dt.timedelta(days=91), checked=(wrong,))
    found = ruled(old, facts("f", B))
    assert found.exit_code == 5
    assert "stale: measured 91 days ago" in found.cells[0].reason
    assert "outputs are wrong: step 3" in found.cells[0].reason


@pytest.mark.parametrize(("age", "code"), [(0, 0), (90, 0), (91, 4), (-1, 0), (-2, 5)])
def test_age_counts_in_days(age: int, code: int) -> None:
    """The last day of the policy's age still counts, and so does tomorrow, which it is elsewhere."""
    date = TODAY - dt.timedelta(days=age)
    assert ruled(facts(date=date), facts("f", B)).exit_code == code


def test_stale_evidence_of_a_class_that_is_not_required_is_shown_and_not_waited_for() -> None:
    """Its machine may be gone. What is wrong there refuses still, and by it alone nothing enters."""
    old = TODAY - dt.timedelta(days=91)
    policy = replace(POLICY, required=(A,))
    found = ruled(facts(), facts("f", B, date=old), policy=policy)
    assert (found.exit_code, table(found)) == (0, ["win", "not-measured"])
    assert found.decisions[0].wins.keys() == {A}
    wrong = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(False, True, "x"), 1.0, True)
    assert ruled(facts(), facts("f", B, date=old, checked=(wrong,)), policy=policy).exit_code == 5
    alone = ruled(facts(), facts("g"), facts("f+g", B, date=old), policy=policy).decisions[2]
    assert [one.verdict for one in alone.reasons] == [Verdict.NOT_MEASURED]


def test_a_knob_may_leave_the_graph_alone_and_a_fusion_may_not() -> None:
    """What is declared the same must set something; what is declared changed must change."""
    policy = replace(POLICY, required=(A,))

    def with_dispatch(dispatch: Dispatch) -> bool:
        checked = Checked("nano", dispatch, Parity(True, True), 1.0, True)
        return ruled(facts(checked=(checked,)), policy=policy).exit_code == 0

    assert with_dispatch(Dispatch((9, 9), knobs={"MLX_MAX_OPS_PER_BUFFER": "9"}, same=True))
    assert not with_dispatch(Dispatch((9, 9), same=True))
    assert not with_dispatch(Dispatch((9, 9), knobs={"MLX_MAX_OPS_PER_BUFFER": "9"}))


@pytest.mark.parametrize(
    ("dispatch", "said"),
    [(Dispatch((9, 10)), "(nodes)"), (Dispatch((9, 9), {"operations.Add": (3, 2)}), "(operations.Add)")],
)
def test_where_it_is_off_the_graph_stays(dispatch: Dispatch, said: str) -> None:
    """What changes there is named."""
    found = ruled(facts(), facts("f", B, off=True, workloads=(), checked=(Checked("nano", dispatch),)))
    assert found.exit_code == 5
    assert found.decisions[0].reasons[0].found.endswith(f"and yet the decode graph changes {said}")


def test_what_was_timed_was_checked() -> None:
    """On each checkpoint."""
    found = ruled(facts(checked=()), facts("f", B))
    assert found.exit_code == 4
    assert "nano: nothing tells whether the fusion is dispatched and right there" in found.cells[0].reason


def test_nan_in_the_figures_of_a_passed_parity_is_invalid() -> None:
    """Whatever the record calls it."""
    for bad in ({"error": float("nan")}, {"steps": [0.1, float("inf")]}):
        checked = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(True, True, figures=bad), 1.0, True)
        assert ruled(facts(checked=(checked,)), facts("f", B)).exit_code == 5


@pytest.mark.parametrize(("ratio", "code"), [(POLICY.memory, 0), (1.11, 5), (float("nan"), 5)])
def test_memory_is_bounded(ratio: float, code: int) -> None:
    """The policy's own factor is allowed; NaN is above every bound."""
    checked = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(True, True), ratio, True)
    assert ruled(facts(checked=(checked,)), facts("f", B)).exit_code == code


def test_pinned_versions_are_asked_for() -> None:
    """Where the policy names them."""
    found = ruled(facts(), facts("f", B), policy=replace(POLICY, mlx="2"))
    assert found.exit_code == 4
    assert "measured with mlx 1, and the policy asks for 2" in found.cells[0].reason


def test_classes_that_were_measured_with_other_versions_do_not_go_together() -> None:
    """The older is to be measured again, and both stacks are named."""
    old = facts("f", A, date=TODAY - dt.timedelta(days=1), versions=("1", "2"))
    found = ruled(old, facts("f", B, versions=("3", "4")))
    assert (table(found), found.exit_code) == (["not-measured", "win"], 4)
    said = "measured with mlx 1 and mlx-vlm 2, while the evidence of class-b is of mlx 3 and mlx-vlm 4"
    assert found.cells[0].reason == said


def test_what_evidence_does_not_hold_is_said() -> None:
    """One workload that is required, or any at all where none is."""
    extra = "nano/text/pp140-tg64"
    found = ruled(facts("f", A, duel((0.05, 0.05), extra)), facts("f", B), facts("f", "class-c", workloads=()))
    reasons = {(cell.chip_class, cell.workload): cell.reason for cell in found.cells}
    assert reasons[A, WORK] == "the evidence of this class does not hold this workload"
    assert reasons["class-c", "any"] == "the evidence of this class holds no workload"
    assert (table(found), found.exit_code) == (["not-measured", "win", "win", "not-measured"], 4)


def test_a_composition_answers_for_its_own_classes_and_its_parts() -> None:
    """It enters where it wins and its parts have entered; the largest effect on a class is the best."""
    singles = [facts(name, chip_class) for name in ("f", "g") for chip_class in (A, B)]
    found = ruled(*singles, facts("f+g", A, duel((0.1, 0.1))))
    assert not found.verdicts
    assert (best(found, A), best(found, B)) == ("f+g", max("f", "g", key=lambda n: _wins(found, n)[B]))
    alone = rule(["f", "f+g"], [*singles, facts("f+g", A, duel((0.1, 0.1)))], POLICY, today=TODAY)
    assert [one.admitted for one in alone.decisions] == [True, False]
    assert "its part g was not admitted" in alone.decisions[1].reasons[0].found


def _wins(ruling: Ruling, name: str) -> dict[str, float]:
    return next(one.wins for one in ruling.decisions if one.fusion == name)


def test_a_composition_has_its_parts_refusal() -> None:
    """A part that is wrong makes the composition invalid, not merely unmeasured."""
    wrong = Checked("nano", Dispatch((9, 8), {"nodes": (9, 8)}), Parity(False, True, "x"), 1.0, True)
    found = ruled(facts(), facts("f", B), facts("g", A, checked=(wrong,)), facts("g", B), facts("f+g", A))
    assert found.decisions[2].reasons[-1].verdict is Verdict.INVALID


def test_a_composition_without_evidence_is_not_measured() -> None:
    """On every required class."""
    found = rule(["f", "g", "f+g"], [], POLICY, today=TODAY)
    assert found.exit_code == 4
    assert len([cell for cell in found.cells if cell.fusion == "f+g"]) == 2


def test_the_parts_of_a_name() -> None:
    """A fusion's own name alone."""
    assert (parts("f"), parts("f+g")) == (("f",), ("f", "g"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"required": ()}, "required classes"),
        ({"required": (A, A)}, "required classes"),
        ({"required": (A, "class-c")}, "class 'class-c' is required"),
        ({"sessions": 1}, "sessions = 1"),
        ({"max_age_days": 0}, "max_age_days = 0"),
        ({"memory": 0.5}, "memory = 0.5"),
        ({"minimum_effect": 0.0}, "minimum_effect = 0.0"),
    ],
)
def test_a_policy_that_could_admit_anything_is_refused(changes: dict[str, object], said: str) -> None:
    """When it is made."""
    with pytest.raises(UsageError, match=said):
        replace(POLICY, **changes)  # type: ignore[arg-type]


def test_a_class_needs_workloads() -> None:
    """Known ids, each once."""
    for workloads in ((), (WORK, WORK), ("nano",)):
        with pytest.raises(UsageError):
            ClassPolicy(workloads)


def test_a_class_is_won_by_what_is_required_there_alone() -> None:
    """A workload that nobody requires makes no composition the better one, however fast it is there."""
    extra = "nano/text/pp140-tg64"
    policy = replace(POLICY, required=(A,))
    plain = facts("f", A, duel((0.05, 0.05)))
    padded = facts("g", A, duel((0.03, 0.03), seed=2), duel((0.5, 0.5), extra, seed=3))
    found = ruled(plain, padded, policy=policy)
    assert not found.verdicts
    wins = {one.fusion: one.wins[A] for one in found.decisions}
    assert wins["g"] == pytest.approx(0.03, abs=0.01)
    assert best(found, A) == "f"


def test_a_goal_stands_beside_the_largest_win_of_its_workload() -> None:
    """Reached or not; no win at all reaches none, and a class without goals says nothing."""
    aims = {WORK: 1.08, "nano/text/pp140-tg64": 2.0}
    policy = replace(POLICY, classes={**POLICY.classes, A: ClassPolicy((WORK,), goals=aims)})
    small, large = facts("f", A, duel((0.05, 0.05))), facts("g", A, duel((0.1, 0.1)))
    assert list(goals(ruled(small, large, policy=policy), policy, A)) == [
        f"{WORK} on {A}: g has 1.11 times stock's throughput; the goal of 1.08 times is reached",
        f"nano/text/pp140-tg64 on {A}: no fusion wins; the goal of 2 times is not reached",
    ]
    (first, _) = goals(ruled(small, policy=policy), policy, A)
    assert first == f"{WORK} on {A}: f has 1.05 times stock's throughput; the goal of 1.08 times is not reached"
    assert not list(goals(ruled(small, policy=policy), policy, B))
    assert not list(goals(ruled(small, policy=policy), policy, "another"))
