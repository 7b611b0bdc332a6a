"""What a comparison of base and head amounts to, over all classes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gemma3n_perf.bench.comparison import Exact
from gemma3n_perf.bench.regression import REGRESSIONS, Regression
from gemma3n_perf.bench.regression_report import as_json, markdown
from gemma3n_perf.bench.regression_rule import ClassResult, RegressionRuling, judged, require_of, rule, rule_on
from gemma3n_perf.ci.post import MAX_COMMENT
from gemma3n_perf.errors import InvalidError, MalformedRecordError
from gemma3n_perf.gate.policy import ClassPolicy, GatePolicy, RegressionPolicy
from gemma3n_perf.stats.verdicts import Verdict, invalid
from gemma3n_perf.store.accepted import Accepted
from tests.bench.regressions import CHANGES, failed, record
from tests.gate.evidence_files import NANO, ONE, TODAY, TWO

BASE, HEAD = "b" * 40, "a" * 40
GPU, MAC = "fake-gpu", "fake-mac"
CLASSES = {GPU: ClassPolicy((ONE, TWO)), MAC: ClassPolicy((NANO,))}
POLICY = GatePolicy((GPU,), CLASSES)
SMALL = Accepted("slower-sampler", HEAD, ONE, -0.10, "a sampler that users asked for")


def ruled(*records: Regression, policy: GatePolicy = POLICY, accepted: tuple[Accepted, ...] = ()) -> RegressionRuling:
    """Judge records and rule on them."""
    return rule([judged(one, policy, accepted, today=TODAY) for one in records], policy)


def on(chip_class: str, *effects: float, **options: object) -> Regression:
    """Return a comparison of a class's workloads with these effects."""
    names = CLASSES[chip_class].workloads
    return record(chip_class, BASE, HEAD, dict(zip(names, effects, strict=True)), **options)  # type: ignore[arg-type]


def under(**rules: object) -> GatePolicy:
    """Return the policy with other rules of regression."""
    return replace(POLICY, regression=RegressionPolicy(**rules))  # type: ignore[arg-type]


def test_a_loss_on_one_workload_refuses_with_the_package_named() -> None:
    """Interval, verdict and cause are in the table; the first line names what did it."""
    found = ruled(on(GPU, -0.05, 0.0))
    assert found.exit_code == 1
    assert found.closing == "refused: loss (mlx 0.32.0 -> 0.32.4)"
    text = "\n".join(markdown(found))
    assert f"| {ONE} | -5." in text
    assert "**loss** |" in text
    assert "**Cause**: mlx 0.32.0" in text


def test_a_change_that_changes_nothing_passes() -> None:
    """No-change on every workload."""
    found = ruled(on(GPU, 0.0, 0.0), on(MAC, 0.0))
    assert (found.exit_code, found.closing) == (0, "no regression: 3 no-change")


def test_the_same_program_passes_without_a_duel() -> None:
    """No machine is asked, and no machine's word is taken for it."""
    found = rule_on([GPU], lambda name: None, (BASE, HEAD), POLICY, Path("nowhere"), (), TODAY)
    assert (found.exit_code, found.closing) == (0, "no regression: the same program")
    assert "no-change: the same program" in "\n".join(markdown(found))


def test_classes_that_disagree_are_shown_and_refused() -> None:
    """A win on one class does not make a loss on another good, whether or not that is required."""
    found = ruled(on(GPU, 0.05, 0.05), on(MAC, -0.05))
    assert found.exit_code == 1
    assert [one.chip_class for one in found.reasons] == [MAC]
    text = "\n".join(markdown(found))
    assert "**win** |" in text
    assert f"classes disagree: a win on {GPU}, a loss on {MAC}; a loss on any refuses" in text
    assert f"| **{MAC}** (not required) | | |" in text


def test_a_required_class_without_an_answer_refuses_and_another_does_not() -> None:
    """A base that cannot be rebuilt says what it lacks."""
    gone = "mlx==0.32.0 was withdrawn"
    found = ruled(failed(GPU, BASE, HEAD, gone, "wait, or rebase"), on(MAC, 0.0))
    assert found.exit_code == 4
    assert f"not-measured: {gone}. Next: wait, or rebase" in "\n".join(markdown(found))
    found = ruled(on(GPU, 0.0, 0.0), failed(MAC, BASE, HEAD, gone))
    assert found.exit_code == 0
    assert f"no answer of {MAC}: {gone}" in found.notes


def test_inconclusive_refuses_where_the_policy_says_so() -> None:
    """By default it passes, and the comment says by what rule."""
    loose = on(GPU, -0.004, 0.0, sd=0.02)
    found = ruled(loose)
    assert Verdict.INCONCLUSIVE in found.classes[0].verdicts
    assert found.exit_code == 0
    assert f"inconclusive on {GPU}: it passes, by [regression] of the policy" in found.notes
    assert ruled(loose, policy=under(inconclusive="refuses")).exit_code == 3
    assert ruled(loose, policy=under(inconclusive="refuses", required=(MAC,))).exit_code == 0


def test_the_margin_of_the_policy_bounds_no_change() -> None:
    """2 % slower is a loss by the usual margin and by a wider one: a margin never hides a loss that was shown."""
    assert ruled(on(GPU, -0.02, 0.0), policy=under(margin=0.05)).exit_code == 1
    found = ruled(on(GPU, 0.0, 0.0, sd=0.012), policy=under(margin=0.05))
    assert found.closing == "no regression: 2 no change of 5 %"


def test_a_maintainers_file_accepts_a_loss_and_no_larger_one() -> None:
    """It is shown with its reason, and the word beside the verdict says that it was accepted."""
    found = ruled(on(GPU, -0.05, 0.0), accepted=(SMALL,))
    assert (found.exit_code, found.closing) == (0, "no regression: 1 loss accepted, 1 no-change")
    text = "\n".join(markdown(found, (SMALL,)))
    assert "**loss**, accepted |" in text
    assert f"slower-sampler: -10.0 % on {ONE}, by {HEAD[:12]}: a sampler that users asked for" in text
    larger = ruled(on(GPU, -0.15, 0.0), accepted=(SMALL,))
    assert larger.exit_code == 1
    assert "more than the -10.0 % of slower-sampler.toml" in larger.reasons[0].found


def test_a_rise_of_exact_counts_without_a_win_refuses() -> None:
    """As on a developer's machine, with the operations as the cause."""
    exact = {ONE: Exact(("graph nodes 900 -> 960",), ("graph: +60 Multiply",))}
    found = ruled(on(GPU, 0.0, 0.0, exact=exact))
    assert found.exit_code == 1
    text = "\n".join(markdown(found))
    assert "exact counts rose without a win: graph nodes 900 -" in text
    assert f"{GPU}, {ONE}: graph: +60 Multiply" in text
    assert ruled(on(GPU, 0.05, 0.0, exact=exact)).exit_code == 0


def test_other_tokens_are_invalid_on_any_class() -> None:
    """What broke a duel off stands, for no launch shows it."""
    found = on(MAC, 0.0)
    assert found.duel is not None
    broken = replace(found.duel.duels[0], judgement=invalid("token 3 differs"))
    assert ruled(replace(found, duel=replace(found.duel, duels=(broken,)))).exit_code == 5


def test_a_workload_of_the_policy_that_is_not_there_is_not_measured() -> None:
    """Whoever leaves out what loses gains nothing."""
    found = ruled(record(GPU, BASE, HEAD, {ONE: 0.0}))
    assert found.exit_code == 4
    assert TWO in found.reasons[0].found


def test_a_stated_verdict_is_not_believed() -> None:
    """The launches are judged again."""
    found = on(GPU, -0.05, 0.0)
    assert found.duel is not None
    rosy = tuple(replace(one, judgement=found.duel.duels[1].judgement) for one in found.duel.duels)
    assert ruled(replace(found, duel=replace(found.duel, duels=rosy))).exit_code == 1


@pytest.mark.parametrize(
    "change",
    [
        {"chip_class": MAC},
        {"base": "c" * 40},
        {"head": "c" * 40},
        {"dirty": True},
        {"arm": "here"},
        {"arm": f"ref:{BASE}+plant:+50%"},
        {"arm": f"ref:{BASE}+env:MLX_X=1"},
        {"arm": f"ref:{BASE}+mlx==0.32.0+plant:+50%"},
    ],
)
def test_a_record_of_another_comparison_is_invalid(change: dict[str, object]) -> None:
    """Class, commits, a clean tree, and arms that are the two commits with packages by version."""
    good = on(GPU, 0.0, 0.0, packages="+mlx==0.32.0+local.1+tqdm==4.67")
    require_of(good, GPU, BASE, HEAD)
    with pytest.raises(InvalidError, match="a comparison that is not of this change"):
        require_of(replace(good, **change), GPU, BASE, HEAD)  # type: ignore[arg-type]


def test_a_planted_duel_is_invalid() -> None:
    """A base that was slowed makes any head fast."""
    good = on(GPU, 0.0, 0.0)
    assert good.duel is not None
    planted = replace(good.duel, planted={"baseline": 0.1, "candidate": 0.0})
    with pytest.raises(InvalidError, match="planted"):
        require_of(replace(good, duel=planted), GPU, BASE, HEAD)


def test_a_record_is_read_back_as_it_was() -> None:
    """And one that has neither a duel nor a reason is none."""
    good = on(GPU, -0.05, 0.0, exact={ONE: Exact(("a",), ("b",))})
    assert REGRESSIONS.decode(REGRESSIONS.encode(good), "x").exact == good.exact
    with pytest.raises(MalformedRecordError, match="a duel or a failure"):
        REGRESSIONS.encode(replace(good, duel=None))


def test_programs_read_the_same_answer() -> None:
    """As JSON."""
    tree = json.loads(as_json(ruled(on(GPU, -0.05, 0.0))))
    assert (tree["result"], tree["exit_code"]) == ("refused", 1)
    assert [one["judgement"]["verdict"] for one in tree["classes"][0]["compared"]] == ["loss", "no-change"]


def test_what_a_record_says_is_plain_text() -> None:
    """A change's author may have written any of it."""
    hostile = "@maintainer [x](https://evil.example) <img>"
    missing = ClassResult(GPU, True, missing=failed(GPU, BASE, HEAD, hostile).failure)
    for one in (rule([missing], POLICY), ruled(on(GPU, -0.05, 0.0, changes=(hostile,)))):
        text = "\n".join(markdown(one))
        assert "@maintainer" not in text
        assert "<img" not in text
        assert "](https" not in text


def test_a_reason_without_a_remedy_is_told_all_the_same() -> None:
    """Not every error knows what to do next."""
    text = "\n".join(markdown(ruled(failed(GPU, BASE, HEAD, "the arm is no arm"))))
    assert "not-measured: the arm is no arm. Next: put right what it names" in text


def test_a_record_of_very_many_workloads_fits_a_comment() -> None:
    """Whoever measured may have made them up."""
    many = {f"nano/text/pp40-tg{number}": 0.0 for number in range(8, 108)}
    text = "\n\n".join(markdown(ruled(record(MAC, BASE, HEAD, many))))
    assert len(text) < MAX_COMMENT / 2
    assert "more lines, in the run" in text


def test_changes_are_named_once() -> None:
    """Every class says them."""
    found = ruled(on(GPU, 0.0, 0.0), on(MAC, 0.0))
    assert found.changes == CHANGES
