import pytest

from gemma3n_perf.report import rows
from gemma3n_perf.report.rows import Row, closing_line


def test_closing_line_counts_every_row_once() -> None:
    """Verdicts are counted worst first; what was not compared or has no baseline is counted too."""
    made = [
        Row("a", verdict=verdict, baseline_label="local 1 session") for verdict in ("no-change", "loss", "no-change")
    ]
    made += [Row("b", verdict="not-measured"), Row("c")]
    assert closing_line(made) == "5 workloads: 1 loss, 2 no-change, 1 not-measured, 1 not compared (1 no baseline)"
    assert closing_line(made[:1]) == "1 workload: 1 no-change"
    assert closing_line(made[:1], 0.025) == "1 workload: 1 no-change [planted 2.5 %]"


def test_invented_verdicts_are_refused() -> None:
    """A row cannot carry a word that is no verdict."""
    with pytest.raises(ValueError, match="faster"):
        Row("a", verdict="faster")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0000004, "0.0 %"), (-0.0000004, "0.0 %"), (-0.0213, "-2.1 %"), (0.0213, "+2.1 %")]
)
def test_change_has_a_sign_only_where_there_is_one(value: float, text: str) -> None:
    """A change that rounds to nothing points in no direction."""
    assert rows.percent(value, 1, sign=True) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.00083, "0.83 ms"), (0.01204, "12.0 ms"), (0.3119, "312 ms"), (1.3, "1.30 s"), (312.4, "312 s")],
)
def test_times_are_scaled(value: float | None, text: str) -> None:
    """Seconds become what a reader would say."""
    assert rows.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (12, "12 B"), (2_500, "2.5 kB"), (2.52e9, "2.52 GB"), (137.4e9, "137 GB")]
)
def test_sizes_are_decimal(value: float | None, text: str) -> None:
    """Bytes are scaled by thousands, as bandwidth is."""
    assert rows.size(value) == text


def test_mixed_baselines_are_told_apart() -> None:
    """Where one row has a stand-in, each label names its workloads."""
    mixed = [Row("a", verdict="win", baseline_label="committed 5 sessions"), Row("b", verdict="loss")]
    assert rows.compared_with(mixed) == "committed 5 sessions: a; no baseline: b"
    assert rows.compared_with(mixed[:1]) == "committed 5 sessions"
    assert rows.compared_with([Row("a")]).startswith("nothing")
