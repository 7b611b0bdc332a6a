import io
import re
from dataclasses import replace

import pytest

from gemma3n_perf.report.rows import Report, Row
from gemma3n_perf.report.terminal import render, write
from tests.report.reports import FULL, UNCOMPARED, golden

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("name", "report", "width", "unicode"),
    [
        ("terminal-80.txt", FULL, 80, True),
        ("terminal-140.txt", FULL, 140, True),
        ("terminal-ascii.txt", FULL, 80, False),
        ("terminal-uncompared.txt", UNCOMPARED, 80, True),
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


def test_plain_stream_gets_no_colour_and_ascii_no_lines() -> None:
    """A log file gets no escape codes, an ASCII stream no character it cannot write."""
    plain = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    write(FULL, plain)
    plain.seek(0)
    assert plain.read() == golden("terminal-80.txt")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    write(replace(FULL, heading="Größe"), ascii_only)
    ascii_only.seek(0)
    assert "Gr??e" in ascii_only.read()


def test_terminal_gets_colour() -> None:
    """On a terminal the verdicts are coloured, unless the caller says otherwise."""

    class Terminal(io.StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    out, silent = Terminal(), Terminal()
    write(FULL, out)
    write(FULL, silent, colour=False)
    assert "\x1b[" in out.getvalue()
    assert "\x1b[" not in silent.getvalue()


def test_names_are_not_markup() -> None:
    """Brackets in a note are text, not instructions to the renderer."""
    note = "see [red]this[/red] and :smile:"
    assert note in render(Report("h", (Row("nano/text/pp40-tg64", note=note),)))


def test_nothing_measured_is_said() -> None:
    """An empty session is not reported as a good one."""
    assert render(Report("h", ())).splitlines()[-1] == "0 workloads: nothing was measured"
