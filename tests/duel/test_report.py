import itertools

import pytest

from gemma3n_perf.duel.report import deciding, interval, render, sentence
from gemma3n_perf.stats.verdicts import Caution, Judgement, NoiseStatus, Verdict

TEXT, LONG = "nano/text/pp40-tg64", "nano/text/pp140-tg64"


def judged(verdict: str, effect: float | None = -0.02, **changes: object) -> Judgement:
    """Return a judgement with an interval of +-0.5 % around its effect."""
    bounds = {} if effect is None else {"low": effect - 0.005, "high": effect + 0.005}
    return Judgement(Verdict(verdict), "because", effect, launches=6, measured_s=25.3, **bounds, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("judgement", "said"),
    [
        (judged("loss"), f"loss: b is 2.00 % slower than a on {TEXT}: because"),
        (judged("win", 0.031), f"win: b is 3.10 % faster than a on {TEXT}: because"),
        (judged("no-change", 0.001), f"no-change: b is as fast as a on {TEXT}: because"),
        (
            judged("inconclusive"),
            f"inconclusive: it cannot be told whether b is faster or slower than a on {TEXT}: because",
        ),
        (judged("not-measured", None), f"not-measured: {TEXT}: because"),
        (judged("invalid", None), f"invalid: {TEXT}: because"),
    ],
)
def test_the_verdict_is_a_sentence(judgement: Judgement, said: str) -> None:
    """Its first word is the verdict."""
    assert sentence(TEXT, judgement, "a", "b") == said


def test_the_table_shows_effect_interval_launches_time_and_noise() -> None:
    """One line a workload, within 118 columns."""
    found = {TEXT: judged("loss", noise=NoiseStatus.USED, noise_floor=0.003), LONG: judged("not-measured", None)}
    lines = render(found, "a", "b").splitlines()
    assert lines[-2].split() == f"{TEXT} -2.00 % [-2.50, -1.50] 6 25 s used, 0.30 % loss".split()
    assert lines[-1].split() == f"{LONG} - 6 25 s - not-measured".split()
    assert max(len(line) for line in lines) <= 118


def test_cautions_come_once_with_their_remedies() -> None:
    """What holds for all workloads is not repeated."""
    dirty, noisy = Caution("dirty", "uncommitted changes", "commit"), Caution("noise", "no floor", "calibrate")
    found = {TEXT: judged("loss", cautions=(dirty, noisy)), LONG: judged("loss", cautions=(dirty,))}
    text = render(found, "a", "b")
    assert text.count("uncommitted changes") == 1
    assert "caution: uncommitted changes\n  next: commit\n" in text
    assert f"caution: {TEXT}: no floor\n  next: calibrate\n" in text


def test_the_worst_verdict_decides() -> None:
    """Invalid before loss before not-measured; the first of equals."""
    order = ["no-change", "win", "inconclusive", "not-measured", "loss", "invalid"]
    for better, worse in itertools.pairwise(order):
        assert deciding({"a": judged(better), "b": judged(worse)}) == "b"
    assert deciding({"a": judged("win"), "b": judged("win")}) == "a"


def test_an_interval_that_is_unknown_is_left_out() -> None:
    """An effect alone, or a dash."""
    assert interval(judged("inconclusive")) == "-2.00 % [-2.50, -1.50]"
    assert interval(Judgement(Verdict.INCONCLUSIVE, "", 0.01)) == "+1.00 %"
    assert interval(judged("invalid", None)) == "-"
