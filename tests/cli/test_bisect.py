import argparse
import io

import pytest

from gemma3n_perf.cli import bisect as command
from gemma3n_perf.cli.bisect import as_text
from gemma3n_perf.duel.bisect import Found, Step
from gemma3n_perf.errors import UsageError
from gemma3n_perf.stats.verdicts import Judgement, Verdict

ENDS = Judgement(Verdict.LOSS, "", -0.1, -0.11, -0.09)
LOSS = Judgement(Verdict.LOSS, "", -0.05, -0.06, -0.04)


def test_each_step_is_told_with_its_effect_and_share() -> None:
    """And the whole, with what no step has."""
    found = Found(ENDS, (Step(("ref:b",), "ref:a", LOSS, 0.487),), 0.0125)
    assert as_text(found, "ref:a", "ref:f").splitlines() == [
        "ref:b changed it: -5.00 % [-6.00, -4.00] against ref:a, 49 % of the whole",
        "the whole: ref:f against ref:a: -10.00 % [-11.00, -9.00], loss; not in these steps: -5.3 % "
        "(none of less than 1.2 % is looked for)",
    ]


def test_steps_that_could_not_be_told_apart_are_all_named() -> None:
    """Oldest first."""
    text = as_text(Found(ENDS, (Step(("ref:b", "ref:c"), "ref:a", LOSS, 0.5),), 0.0125), "ref:a", "ref:f")
    assert "one of 2, ref:b, ref:c: changed it" in text


@pytest.mark.parametrize(("verdict", "said"), [("no-change", "as fast as"), ("inconclusive", "cannot be told")])
def test_ends_that_show_no_change_say_so(verdict: str, said: str) -> None:
    """In the first line."""
    found = Found(Judgement(Verdict(verdict), "so it is"), (), 0.01)
    assert said in as_text(found, "ref:a", "ref:f").splitlines()[0]


def test_a_commit_that_is_none_is_a_usage_error_before_the_machine_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo exits 2, at once."""
    monkeypatch.setattr(command, "machine", lambda *_: pytest.fail("the machine was held"))
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    with pytest.raises(UsageError, match="no commit"):
        command.run(parser.parse_args(["ref:no-such-commit", "ref:HEAD"]), io.StringIO())
