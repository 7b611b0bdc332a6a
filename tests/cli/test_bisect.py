from gemma3n_perf.cli.bisect import as_text
from gemma3n_perf.duel.bisect import Found
from gemma3n_perf.stats.verdicts import Judgement, Verdict

LOSS = Judgement(Verdict.LOSS, "", -0.05, -0.06, -0.04)


def test_the_first_changed_step_is_told_with_its_effect() -> None:
    """And the interval of that effect."""
    assert as_text(Found(("ref:b",), "ref:a", LOSS, ())) == (
        "the first changed step is ref:b\nref:b against ref:a: -5.00 % [-6.00, -4.00], loss\n"
    )


def test_steps_that_could_not_be_told_apart_are_all_named() -> None:
    """Oldest first."""
    text = as_text(Found(("ref:b", "ref:c"), "ref:a", LOSS, ()))
    assert "one of 2" in text
    assert text.index("ref:b") < text.index("ref:c")
