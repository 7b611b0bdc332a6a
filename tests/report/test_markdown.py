import pytest

from gemma3n_perf.report.markdown import render, table
from gemma3n_perf.report.rows import Report, Row
from tests.report.reports import FULL, UNCOMPARED, golden


@pytest.mark.parametrize(("name", "report"), [("report.md", FULL), ("uncompared.md", UNCOMPARED)])
def test_golden(name: str, report: Report) -> None:
    """The Markdown is what the golden file shows, character by character."""
    assert render(report) == golden(name)


def test_no_cell_breaks_the_table() -> None:
    """A bar, a line break or a tag in a name stays in its cell."""
    lines = table(("a", "b"), [("x|y\nz", "<b>")]).splitlines()
    assert lines[-1] == "| x\\|y z | &lt;b> |"
    assert "**" in render(Report("<script>", (Row("a", verdict="loss"),)))
    assert "<script>" not in render(Report("<script>", ()))
