import io
import re
from dataclasses import replace

import pytest

from gemma3n_perf.bench.table import Report, Row, closing_line, render
from gemma3n_perf.report.terminal import speaks_unicode
from gemma3n_perf.stats.verdicts import Verdict
from tests.bench.reports import FULL, UNCOMPARED, golden

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("name", "report", "width", "unicode"),
    [
        ("table-80.txt", FULL, 80, True),
        ("table-140.txt", FULL, 140, True),
        ("table-ascii.txt", FULL, 80, False),
        ("table-uncompared.txt", UNCOMPARED, 80, True),
    ],
)
def test_golden(name: str, report: Report, width: int, unicode: bool) -> None:
    """The report is what the golden file shows, character by character."""
    assert render(report, width=width, unicode=unicode) == golden(name)


def test_eighty_columns_hold() -> None:
    """Nothing but the closing line, which must stay one, is wider than the terminal."""
    *lines, closing = render(FULL, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert closing.startswith("6 workloads: 1 invalid, 1 loss")


@pytest.mark.parametrize("width", [80, 100, 119, 120, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    """Whatever the width and however long a name, every value is there whole."""
    long = replace(FULL.rows[0], workload="some-long-checkpoint-name-of-a-user/text/pp320-tg96")
    text = render(replace(FULL, rows=(long, *FULL.rows)), width=width)
    for value in ("83.1", "[82.4, 83.7]", "12.0 ms", "312 ms", "28 %", "-2.1 %", "[-3.0, -1.2]", "inconclusive"):
        assert value in text


def test_colour_changes_no_character() -> None:
    """With the colours taken out a coloured report is the plain one."""
    coloured = render(FULL, colour=True)
    assert "\x1b[" in coloured
    assert ANSI.sub("", coloured).split() == render(FULL).split()


def test_a_stream_without_unicode_gets_no_character_it_cannot_write() -> None:
    """Neither a line of the table nor a letter of a name."""
    assert "Gr??e" in render(replace(FULL, heading="Größe"), unicode=False)
    assert not speaks_unicode(io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert speaks_unicode(io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))


def test_names_are_not_markup() -> None:
    """Brackets in a note are text, not instructions to the renderer."""
    note = "see [red]this[/red] and :smile:"
    assert note in render(Report("h", (Row("nano/text/pp40-tg64", note=note),)))


def test_nothing_measured_is_said() -> None:
    """An empty session is not reported as a good one."""
    assert render(Report("h", ())).splitlines()[-1] == "0 workloads: nothing was measured"


def test_closing_line_counts_every_row_once() -> None:
    """Verdicts are counted worst first; what was not compared is counted too."""
    made = [Row("a", verdict=verdict) for verdict in (Verdict.NO_CHANGE, Verdict.LOSS, Verdict.NO_CHANGE)]
    made += [Row("b", verdict=Verdict.NOT_MEASURED), Row("c")]
    assert closing_line(made) == "5 workloads: 1 loss, 2 no-change, 1 not-measured, 1 not compared"
    assert closing_line(made[:1]) == "1 workload: 1 no-change"
    assert closing_line(made[:1], 0.025) == "1 workload: 1 no-change [planted 2.5 %]"


def test_what_differs_stands_below_the_table() -> None:
    """One difference a line, under its workload and verdict."""
    row = Row("a", verdict=Verdict.LOSS, differs=("graph: +60 Transpose", "decode/decoder.py changed"))
    text = render(Report("h", (row,)))
    assert "a: loss; what differs:\n  graph: +60 Transpose\n  decode/decoder.py changed\n" in text


def test_what_is_compared_with_is_said() -> None:
    """Or that nothing is."""
    row = Row("a", tokps=1.0, verdict=Verdict.LOSS)
    assert "change against ref:1 (the parent commit)" in render(
        Report("h", (row,), against="ref:1 (the parent commit)")
    )
    assert "change against nothing: no comparison was asked for" in render(Report("h", (row,)))
