from dataclasses import replace
from typing import Any

import pytest

from gemma3n_perf.bench.comparison import SAME_PROGRAM, Compared
from gemma3n_perf.bench.report import build, row
from gemma3n_perf.bench.table import Report, closing_line, render
from gemma3n_perf.decode.types import Run
from gemma3n_perf.hardware.types import Conditions
from gemma3n_perf.stats.verdicts import Caution, Judgement, Verdict, invalid, not_measured
from gemma3n_perf.store.published import Figure, Publication
from tests.fakes import CHIP, STACK, WORKLOAD, measurement

SAME = Judgement(Verdict.NO_CHANGE, "as it was", effect=0.001, low=-0.004, high=0.006)
LOSS = Judgement(Verdict.LOSS, "below -0.5 %", effect=-0.2, low=-0.25, high=-0.15)


def compared(judgement: Judgement = SAME, **changes: Any) -> Compared:
    """Return one workload's comparison."""
    return Compared(WORKLOAD, judgement, measurement(**changes))


def report(*made: Compared, requested: bool = True, **options: Any) -> Report:
    """Build the report of a session."""
    return build(CHIP, STACK, made, requested=requested, **options)


def found(made: Report) -> str:
    """Return all warnings in one text."""
    return "\n".join(f"{caution.found} | {caution.remedy}" for caution in made.cautions)


def test_row_holds_what_was_measured() -> None:
    """Throughput is one over the session's time per token, with an interval around it; TTFT is the median."""
    one = row(compared(streamed_bytes=30_000_000, copy_bandwidth=10e9), requested=True)
    assert one.tpot_s == 0.01
    assert one.tokps == pytest.approx(100)
    low, high = one.tokps_interval
    assert low is not None
    assert high is not None
    assert low < 100 < high
    assert one.ttft_s == 0.11
    assert one.floor_share == pytest.approx(0.3)
    assert (one.change, one.change_interval) == (0.001, (-0.004, 0.006))
    assert one.verdict == "no-change"


def test_unknown_stays_unknown() -> None:
    """One run has no interval, no prefill no TTFT, and an unknown bandwidth no floor."""
    runs = measurement().runs[:1]
    one = row(compared(runs=runs, ttft_s=(), copy_bandwidth=None), requested=True)
    assert (one.tokps_interval, one.ttft_s, one.floor_share) == ((None, None), None, None)


def test_uncompared_session_states_no_change() -> None:
    """Without a comparison asked for, no change and no verdict are shown, nor warnings about them."""
    made = report(compared(not_measured("no commit")), requested=False)
    one = made.rows[0]
    assert (one.change, one.change_interval, one.verdict) == (None, (None, None), None)
    assert made.cautions == ()
    assert closing_line(made.rows) == "1 workload: 1 not compared"


@pytest.mark.parametrize(
    ("judgement", "remedy"),
    [
        (LOSS, "bisect"),
        (Judgement(Verdict.INCONCLUSIVE, "differ too much"), "gemma3n-perf duel ref:v1.0 here"),
        (not_measured("no commit"), "--against ARM"),
        (invalid("tokens differ"), "measure again"),
    ],
)
def test_every_verdict_but_no_change_is_warned_of(judgement: Judgement, remedy: str) -> None:
    """Workload, verdict and reason, with what to do next."""
    said = found(report(compared(judgement), arm="ref:v1.0"))
    assert f"{WORKLOAD}: {judgement.verdict.value}: {judgement.reason}" in said
    assert remedy in said
    assert found(report(compared())) == ""


def test_workload_that_was_not_measured_has_a_row() -> None:
    """Its reason is told."""
    made = report(compared(), missing={"nano/text/pp140-tg64": "out of memory"})
    lost = made.rows[1]
    assert (lost.verdict, lost.tokps) == ("not-measured", None)
    assert closing_line(made.rows) == "2 workloads: 1 no-change, 1 not-measured"
    assert "nano/text/pp140-tg64: out of memory" in render(made)


def test_discarded_runs_are_told_with_their_reasons() -> None:
    """How many, why, and how many count, compared or not."""
    lost = tuple(Run(1.0, 64, (0.1,) * 64, Conditions(), (fault,)) for fault in ("steal", "foreign-cpu", "steal"))
    for requested in (True, False):
        assert "3 runs were discarded (foreign-cpu, steal), 3 count" in found(
            report(compared(discarded=lost), requested=requested)
        )


def test_forged_soft_tokens_and_unrepeatable_prefill_are_told() -> None:
    """What an image row does not measure, and what a TTFT may be worth, stand in the warnings."""
    said = found(report(compared(soft_tokens="forged soft tokens", prefill_reproducible=False), requested=False))
    assert "256 forged soft tokens, not a vision tower's" in said
    assert "different first tokens" in said


def test_rises_are_warned_of_and_what_differs_is_shown() -> None:
    """Under a loss, a win, or a count that rose; not under no-change."""
    causes = ("graph: +30 Transpose",)
    for judgement in (LOSS, replace(LOSS, verdict=Verdict.WIN)):
        assert row(replace(compared(judgement), causes=causes), requested=True).differs == causes
    assert row(replace(compared(), causes=causes), requested=True).differs == ()
    risen = replace(compared(), causes=causes, rises=("graph nodes 1 -> 2",))
    assert row(risen, requested=True).differs == causes
    assert f"{WORKLOAD}: exact counts rose: graph nodes 1 -> 2" in found(report(risen))


def test_the_same_program_has_stored_numbers_and_no_change_of_its_own() -> None:
    """Whether runs were taken of it or not."""
    judgement = Judgement(Verdict.NO_CHANGE, SAME_PROGRAM, effect=0.0)
    stored = "stored: 109.0 tok/s [103.0, 115.0]; not timed today"
    one = row(Compared(WORKLOAD, judgement, stored=stored), requested=True)
    assert (one.tokps, one.change, one.verdict) == (None, None, "no-change")
    assert one.note == f"no-change: the same program; {stored}"
    assert row(compared(judgement), requested=True).tokps == pytest.approx(100)


def test_cautions_become_warnings_once() -> None:
    """A caution stands with its workload and remedy; what is said twice is printed once."""
    caution = Caution("stack-differs", "another mlx", "a duel tells")
    same = Caution("x", "said before", "do it")
    made = report(replace(compared(), cautions=(caution,)), cautions=[same, same])
    assert made.cautions.count(same) == 1
    assert Caution("stack-differs", f"{WORKLOAD}: another mlx", "a duel tells") in made.cautions


def test_planted_slowdown_reaches_every_view() -> None:
    """Heading and closing line carry the mark."""
    text = render(report(compared(LOSS), planted=0.25))
    assert "PLANTED SLOWDOWN of 25 %" in text
    assert text.splitlines()[-1] == "1 workload: 1 loss [planted 25 %]"


def test_published_figures_stand_beside_ours_and_judge_nothing() -> None:
    """A figure of this chip, checkpoint and modality is shown with its source; others are not."""
    figure = Figure("Fake CPU", None, "mlxcel", "nano", "text", 82.0, 83.5, "raw", "table 1")
    others = (
        replace(figure, chip="Other CPU", low=7.0, high=7.0),
        replace(figure, modality="image", low=8.0, high=8.0),
    )
    page = Publication(
        1, "p", "someone/repo #1", "https://example.org", "June 2026", "x", {"raw": "x"}, (figure, *others)
    )
    made = report(compared(), published=(page,))
    assert [(workload, one.figure.tokps) for workload, one in made.references] == [(WORKLOAD, "82.0 to 83.5")]
    assert made.references[0][1].source == "someone/repo #1, table 1, June 2026"
    assert made.rows == report(compared()).rows


def test_heading_names_chip_and_stack() -> None:
    """A report cut out of a log still says where its numbers are from."""
    heading = report(compared()).heading
    for part in ("cpu-fake-2c", "mlx 0.32.4", "mlx-vlm 0.7.10", "0123456789ab"):
        assert part in heading
